"""Postfix and Exim as Debian packages them, as next hops: unpacked into a folder, because they exclude each other as
installed packages, and run from there on a port of loopback. They take content by DATA, and hand all of it to one host
behind them, unchanged but for their own fields.
"""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest

from harness import free_port, wait_until
from peers import can_connect

UNPACKED = {"postfix": ("postfix",), "exim": ("exim4-daemon-light", "exim4-base")}


def unpack(name, cache):
    """The packages' files, below `cache`; skips the test where they cannot be had."""
    root = pathlib.Path(cache) / name
    if root.exists():
        return root
    if os.geteuid() != 0:
        pytest.skip(f"{name} as a next hop wants root")
    folder = root.with_suffix(".packages")
    folder.mkdir(parents=True)
    folder.parent.chmod(0o755)  # they run as users of their own
    got = subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *UNPACKED[name]], cwd=folder,
                         capture_output=True, text=True, timeout=120)
    packages = list(folder.glob("*.deb"))
    if got.returncode != 0 or not packages:
        pytest.skip(f"apt-get cannot download {name}: {got.stderr.strip()[-200:]}")
    for package in packages:
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True, capture_output=True)
    return root


class Mta:
    """One of them, with users of its own: in a mount namespace, where /etc/passwd and /etc/group have them."""

    user = None

    def __init__(self, root, next_port):
        self.root, self.next_port = root, next_port
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{self.user}-"))  # where users other than ours may look
        self.port = free_port()
        self.process = None

    def prepare(self):
        """Writes the configuration; returns the command and its environment."""
        raise NotImplementedError

    def __enter__(self):
        self.folder.chmod(0o755)
        for name, lines in (("passwd", f"{self.user}:x:64999:64999::/:/bin/false\n"),
                            ("group", f"{self.user}:x:64999:\npostdrop:x:64998:\n")):
            ours = {line.split(":")[0] for line in lines.splitlines()}  # the machine may have such users already
            others = [line for line in pathlib.Path(f"/etc/{name}").read_text().splitlines() if line.split(":")[0] not in ours]
            (self.folder / name).write_text("\n".join(others) + "\n" + lines)
        command, environment = self.prepare()
        bind = " && ".join([*(f'mount --bind "{self.folder}/{name}" /etc/{name}' for name in ("passwd", "group")),
                            'exec "$@"'])
        with open(self.folder / "output", "ab") as output:
            self.process = subprocess.Popen(
                ["unshare", "-m", "sh", "-c", bind, "sh", *command], stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, env=dict(os.environ, **environment), start_new_session=True)
        wait_until(lambda: self.process.poll() is not None or can_connect(self.port), 30, f"a listening {self.user}")
        if self.process.poll() is not None:
            raise AssertionError(f"{self.user} does not run: {self.log()}")
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        shutil.rmtree(self.folder)

    def log(self):
        paths = (self.folder / "output", self.folder / "log")
        return "".join(path.read_text(errors="replace")[-3000:] for path in paths if path.exists())


class Postfix(Mta):
    user = "postfix"
    MASTER = """
{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

    def prepare(self):
        sbin = self.root / "usr/lib/postfix/sbin"
        etc, queue, data = self.folder / "etc", self.folder / "spool", self.folder / "data"
        for path in (etc, queue, data):
            path.mkdir()
        for name in ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
                     "public", "maildrop", "saved", "trace"):
            (queue / name).mkdir()
            os.chown(queue / name, 64999, 64998 if name in ("public", "maildrop") else -1)
        (queue / "pid").mkdir()
        os.chown(data, 64999, 64999)
        (etc / "master.cf").write_text(self.MASTER.format(port=f"127.0.0.1:{self.port}"))
        (etc / "main.cf").write_text(f"""
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
daemon_directory = {sbin}
command_directory = {self.root}/usr/sbin
meta_directory = {etc}
shlib_directory = {self.root}/usr/lib/postfix
import_environment = MAIL_CONFIG MAIL_LOGTAG LD_LIBRARY_PATH
maillog_file = {self.folder}/log
maillog_file_prefixes = {self.folder}
myhostname = postfix.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
relayhost = [127.0.0.1]:{self.next_port}
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_discard_ehlo_keywords = chunking
smtpd_tls_security_level = none
smtp_tls_security_level = none
message_size_limit = 0
""")
        return [str(sbin / "master"), "-d", "-c", str(etc)], {"LD_LIBRARY_PATH": f"{self.root}/usr/lib/postfix"}


class Exim(Mta):
    user = "Debian-exim"

    def prepare(self):
        spool = self.folder / "spool"
        spool.mkdir()
        os.chown(spool, 64999, 64999)
        config = self.folder / "exim.conf"
        config.write_text(f"""
primary_hostname = exim.test
exim_path = {self.root}/usr/sbin/exim4
chunking_advertise_hosts =
daemon_smtp_ports = {self.port}
local_interfaces = 127.0.0.1
spool_directory = {spool}
log_file_path = {spool}/%slog
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = 100
smtp_accept_queue_per_connection = 0
queue_run_in_order = false
acl_smtp_rcpt = accept_all
acl_smtp_data = accept_all
begin acl
accept_all:
  accept
begin routers
behind:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = behind
begin transports
behind:
  driver = smtp
  port = {self.next_port}
  allow_localhost
  hosts_try_chunking =
begin retry
* * F,1h,1m
""")
        return [str(self.root / "usr/sbin/exim4"), "-bdf", "-q1m", "-C", str(config)], {}

    def log(self):
        logs = (self.folder / "spool" / name for name in ("mainlog", "paniclog", "rejectlog"))
        return super().log() + "".join(path.read_text(errors="replace")[-3000:] for path in logs if path.exists())


MTAS = {"postfix": Postfix, "exim": Exim}
