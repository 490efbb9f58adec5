"""The servers that the crash harness runs: each keeps its spool and its Maildirs on the disk it is given, relays all other
mail to a port, retries within seconds, and is run by the same words.
"""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess

from crash.faults import read_spool
from harness import Postrider, binary, free_port, wait_until
from peers import can_connect

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1; connections 1000 per-client; max-size 50MiB }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
retry 1s 1s 2s for 1h
"""


class PostriderServer(Postrider):
    """What the checks need of it: `unsound` collects what the independent reader does not like."""

    def __init__(self, folder, disk, next_port, environment):
        super().__init__(folder, binary_path=binary("RELEASE"), next_port=next_port, environment=environment)
        self.state, self.mail = disk.at / "state", disk.at / "mail"
        self.unsound = []
        self.reads = 0
        self.write_config(SITE)

    def victims(self):
        return [*self.role_pids(), "supervisor"]

    def pending(self):
        self.reads += 1
        pending, problems = read_spool(self.state / "spool")
        self.unsound += map(str, problems)
        return pending

    def drain(self, seconds):
        """Until nothing waits; returns what is wrong with its counters then."""
        self.wait_until_empty(seconds)
        figures = self.figures()
        wrong = [] if figures["balanced"] == 1 else ["its counters do not balance"]
        wrong += [f"{figures['held']} messages are held"] if figures["held"] else []
        return wrong + [line for line in self.crashes().splitlines() if line]


MAIN_CF = """
compatibility_level = 3.6
queue_directory = {disk}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log
maillog_file_prefixes = /var, /dev/stdout, {folder}
enable_long_queue_ids = yes
myhostname = mx.local.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
virtual_mailbox_domains = local.test
virtual_mailbox_maps = static:local.test/ok/
virtual_mailbox_base = {disk}/mail
virtual_mailbox_limit = 0
notify_classes =
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
alias_maps =
alias_database =
relayhost = [127.0.0.1]:{next_port}
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_tls_security_level = none
smtp_tls_security_level = none
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
message_size_limit = 52428800
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
transport_retry_time = 1s
service_throttle_time = 1s
"""
MASTER_CF = """127.0.0.1:{port} inet n - n - 500 smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
scache unix - - n - 1 scache
showq unix n - n - - showq
postlog unix-dgram n - n - 1 postlogd
"""
QUEUES = ("incoming", "active", "deferred")


class PostfixServer:
    """Debian's Postfix with a queue of its own. Its processes come and go, so a victim may have ended before it is hit."""

    def __init__(self, folder, disk, next_port, environment):
        self.folder, self.environment = pathlib.Path(folder), environment
        self.port, self.queue, self.mail = free_port(), disk.at / "queue", disk.at / "mail"
        self.unsound, self.reads, self.process = [], 0, None
        self.etc, self.data = self.folder / "etc", self.folder / "data"
        for path in (self.etc, self.data):
            path.mkdir(parents=True, exist_ok=True)
        shutil.chown(self.data, "postfix")
        words = {"folder": self.folder, "disk": disk.at, "port": self.port, "next_port": next_port}
        (self.etc / "main.cf").write_text(MAIN_CF.format(**words), encoding="utf-8")
        (self.etc / "master.cf").write_text(MASTER_CF.format(**words), encoding="utf-8")

    def start(self, wait=True):
        for path in (self.queue, self.mail):
            path.mkdir(exist_ok=True)
        shutil.chown(self.mail, 65534, 65534)
        with open(self.folder / "output", "ab") as output:
            subprocess.run(["postfix", "-c", str(self.etc), "check"], check=False, stdout=output, stderr=output)
            self.process = subprocess.Popen(["/usr/lib/postfix/sbin/master", "-c", str(self.etc), "-d"],
                                            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            env=dict(os.environ, **self.environment))
        if wait:
            wait_until(lambda: self.process.poll() is not None or can_connect(self.port), 60, "a listening Postfix")
            assert self.process.poll() is None, (self.folder / "output").read_text()[-2000:]
        return self

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.process = None

    def role_pids(self):
        """{"smtp 1": pid, ...}: master's children."""
        roles = {}
        for pid in pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                name = pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()
                roles[f"{name} {sum(key.split()[0] == name for key in roles)}"] = int(pid)
        return roles

    def victims(self):
        return list(self.role_pids())  # after a master's end alone its children stay, and a new one cannot start

    def pending(self):
        """(queue id, None) of each message that is whole: those that are not are no messages yet."""
        self.reads += 1
        found = set()
        for queue in QUEUES:
            for folder, _, names in os.walk(self.queue / queue):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):  # it is just moved from queue to queue
                        if os.stat(os.path.join(folder, name)).st_mode & 0o100:
                            found.add((name, None))
        return found

    def drain(self, seconds):
        wait_until(lambda: not self.pending(), seconds, "an empty queue")
        return []


SERVERS = {"postrider": PostriderServer, "postfix": PostfixServer}
