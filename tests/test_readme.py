"""README.md is what a new user follows: its packages, its file and its commands are read out of it here, and run.

Names that only the real machine has are exchanged: ports below 1024, /etc, /var/mail and /var/lib, the service manager.
"""
import re
import shlex
import subprocess

import pytest

from harness import SOURCE, Postrider, free_port
from test_tls import make_certificate

README = (SOURCE / "README.md").read_text(encoding="utf-8")
PASSWORD = "pencil & paper"


def blocks(heading):
    """The code blocks below a heading, down to the next one, each without its indentation."""
    part = re.split(r"^##+ .*$", README.split(heading + "\n", 1)[1], maxsplit=1, flags=re.M)[0]
    found, lines = [], []
    for line in [*part.splitlines(), "end"]:
        if line.startswith("    ") or (not line and lines):
            lines.append(line)
        elif lines:
            indent = min(len(l) - len(l.lstrip()) for l in lines if l)
            found.append("\n".join(l[indent:] for l in lines).rstrip("\n"))
            lines = []
    return found


def commands(block):
    """Each command of a block as its words; comments are none, a line may go on in the next."""
    lines = block.replace("\\\n", " ").splitlines()
    found = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [words for words in found if words]


class ReadmeSite(Postrider):
    """The site of README.md, with users."""

    def __init__(self, folder):
        super().__init__(folder, "state {state}\n")
        self.ports = {"25": self.port, "587": free_port(), "465": free_port()}
        self.site, self.first = blocks("## A whole site in one file")[:2]
        submission = blocks("### Let people send: mail programs with a password")
        self.listeners, self.user, self.take_up, self.first_try, self.certificate = submission
        self.add(self.site)

    def add(self, text):
        with open(self.config_path, "a", encoding="utf-8") as config:
            config.write(self.here(text) + "\n")

    def here(self, text):
        text = re.sub(r"address :(\d+)", lambda m: f"address 127.0.0.1:{self.ports[m[1]]}", text)
        return text.replace("/var/mail/", f"{self.mail}/").replace("/var/lib/postrider", str(self.state))

    def run(self, words, **options):
        """A command of README.md; what it printed."""
        words = [self.here(word) for word in words]
        if words[0] == "postrider":
            words = [str(self.binary), *words[1:], *([] if words[1] == "send" else ["--config", str(self.config_path)])]
        result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                                check=False, **options)
        assert result.returncode == 0, f"{words}: exit {result.returncode}\n{result.stdout}"
        return result.stdout


def test_the_packages_are_those_of_try():
    packages, setup = commands(blocks("## Install")[0])[:2]
    wanted = subprocess.run(["bash", "-c", ". tests/packages.sh && echo $BUILD_PACKAGES"], cwd=SOURCE, check=True,
                            capture_output=True, text=True).stdout.split()
    assert packages[:2] == ["apt-get", "install"] and [w for w in packages[2:] if not w.startswith("-")] == wanted
    options = (SOURCE / "meson_options.txt").read_text(encoding="utf-8")
    assert setup[:3] == ["meson", "setup", "build"]
    assert all(f"option('{name}'" in options for name in re.findall(r"-D(\w+)=", shlex.join(setup)))


def test_the_service_takes_no_call_away_that_is_needed():
    """systemd hides openat2() where it cannot look into its arguments; then no file below a directory can be opened."""
    unit = (SOURCE / "dist/postrider.service").read_text(encoding="utf-8")
    assert not re.search(r"^RestrictSUIDSGID=", unit, re.M)


def test_the_service_waits_for_maildirs_and_never_gives_up():
    unit = (SOURCE / "dist/postrider.service").read_text(encoding="utf-8")
    about, service = re.search(r"^\[Unit\]\n(.*)^\[Service\]\n(.*)", unit, re.M | re.S).groups()
    (after,) = re.findall(r"^After=(.*)", about, re.M)
    assert {"network-online.target", "remote-fs.target", "nss-user-lookup.target"} <= set(after.split())
    assert re.search(r"^Restart=always$", service, re.M)
    assert re.search(r"^StartLimitIntervalSec=0$", about, re.M), "elsewhere systemd does not know it"


def test_from_the_file_to_mail_by_password(tmp_path):
    server = ReadmeSite(tmp_path)
    check, service, send, look, status = commands(server.first)
    assert "good: 1 listener, 1 domain with 5 names" in server.run(check)
    assert service == ["systemctl", "enable", "--now", "postrider"]
    with server:
        assert "Stored as" in server.run([*send, "--server", f"127.0.0.1:{server.port}"])
        server.wait_until_empty()
        assert len(server.run(look).split()) == 1
        assert re.search(r"^receiver +0 .* running", server.run(status), re.M)

        server.add(server.listeners)
        (user,), (curl,) = commands(server.user), commands(server.first_try)
        server.run(user, input=PASSWORD + "\n")
        for command in commands(server.take_up):
            server.run(command)
        (tmp_path / "FILE").write_text(f"From: anna@example.org\nSubject: by {PASSWORD}\n\nhello\n", encoding="utf-8")
        curl[curl.index("--user") + 1] += ":" + PASSWORD
        curl += ["--silent", "--show-error", "--connect-to", f"mx.example.org:465:127.0.0.1:{server.ports['465']}"]
        server.run(curl, cwd=tmp_path)
        server.wait_until_empty()
        (arrived,) = (server.mail / "example.org/bob/new").iterdir()
        text = arrived.read_text(encoding="utf-8")
        assert "with ESMTPSA" in text and f"Subject: by {PASSWORD}" in text
        # As somebody else: refused, and the log says why.
        curl[curl.index("--mail-from") + 1] = "bob@example.org"
        with pytest.raises(AssertionError, match="exit 55"):
            server.run(curl, cwd=tmp_path)
        assert "that address is not yours" in server.logged("refused")[-1]["refusal"]


def test_the_line_with_a_certificate(tmp_path):
    server = ReadmeSite(tmp_path)
    make_certificate(tmp_path, "mx.example.org")
    line = server.certificate.replace("/etc/letsencrypt/live/mx.example.org", str(tmp_path))
    server.add(line.replace("fullchain.pem", "mx.example.org.pem").replace("privkey.pem", "mx.example.org.key"))
    assert "good: " in server.run(["postrider", "check"])
