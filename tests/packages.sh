# What Postrider needs of Debian 12. Sourced by ./try and ./test; installs only what is missing.
BUILD_PACKAGES="gcc libc6-dev meson ninja-build pkg-config libunbound-dev libxxhash-dev libidn2-dev libunistring-dev libcrypt-dev libseccomp-dev
    libssl-dev libcurl4-openssl-dev libjansson-dev zlib1g-dev dns-root-data ca-certificates"
TEST_PACKAGES="clang libclang-rt-14-dev python3 python3-pytest python3-pytest-xdist mandoc git patch procps psmisc iproute2 strace e2fsprogs mount
    swaks libnet-ssleay-perl openssl msmtp gsasl curl dovecot-lmtpd nsd ldnsutils unbound netcat-openbsd telnet nodejs node-nodemailer python3-xxhash
    gdb haproxy nginx libnginx-mod-mail xfsprogs btrfs-progs fuse3 libfuse3-dev postfix libevent-2.1-7 libgnutls-dane0 libidn12 libnsl2 libdb5.3"
FUZZ_PACKAGES="clang libclang-rt-14-dev llvm-14 python3"

install_packages() {
    missing=""
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        echo "These Debian packages are missing; install them as root: apt-get install$missing" >&2
        return 1
    fi
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null || return 1
    # Packages must not start servers of their own on this machine: policy-rc.d says no while we install.
    policy=/usr/sbin/policy-rc.d
    made_policy=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made_policy=yes
    fi
    # shellcheck disable=SC2086
    said=$(apt-get install -y -qq --no-install-recommends $missing 2>&1)
    status=$?
    [ "$made_policy" = yes ] && rm -f "$policy"
    [ "$status" -eq 0 ] || printf 'apt-get could not install:%s\n%s\n' "$missing" "$(echo "$said" | tail -n 5)" >&2
    return "$status"
}
