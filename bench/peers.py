"""The servers under test, each told to do the same: listen on loopback, take mail from there to anywhere, and

    hold      keep it and deliver nothing (Postrider and `defer`: the next hop's port is closed)
    relay     pass all of it to one next hop
    fanout    pass d0.test to d199.test to NEXT_HOPS next hops
    defer     try to, where nobody listens
    maildir   deliver u0@local.test to u99@local.test into Maildirs

Postfix is tuned as its TUNING_README says; none of them is asked to sync less than it does as it comes.
"""
import os
import pathlib
import pwd
import shutil
import signal
import subprocess

import machine
from machine import CLOSED, NEXT_HOPS, PORT, SINK, sh

SOURCE = pathlib.Path(__file__).resolve().parent.parent
DOMAINS = 200
BOXES = 100


def next_hop(domain):
    return SINK + domain % NEXT_HOPS


class Peer:
    """One server. start() returns as soon as its processes are on their way; all it writes is below `at`, on the disk."""
    package = None

    def __init__(self, folder):
        self.folder, self.group, self.process = folder, machine.Group(self.name), None

    def spawn(self, *words, cpus=None, env=None, log="log"):
        def enter():
            self.group.join()
            if cpus:
                os.sched_setaffinity(0, cpus)
        with open(self.folder / f"{self.name}.{log}", "ab") as out:
            return subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                    preexec_fn=enter, env=os.environ | (env or {}))

    def stop(self):
        """Politely, as an operator would; what is left by its id."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                pass
        self.group.stop()
        if self.process:
            self.process.wait()
        self.process = None


class Postrider(Peer):
    name = "postrider"
    binary = os.environ.get("POSTRIDER_RELEASE") or str(SOURCE / "build/postrider")

    def start(self, at, mode, tls, cpus=None):
        routes = {
            "relay": f"route default {{ via 127.0.0.1:{SINK}; tls off; connections 50; messages-per-connection 10000 }}\n",
            "fanout": "".join(
                f"route {' '.join(f'd{n}.test' for n in range(hop, DOMAINS, NEXT_HOPS))} "
                f"{{ via 127.0.0.1:{SINK + hop}; tls off; connections 50; messages-per-connection 10000 }}\n"
                for hop in range(NEXT_HOPS)),
        }
        text = (f"hostname mta.bench.test\nstate {at}/state\nmta-sts off\n"
                f"listen mx {{ address 127.0.0.1:{PORT}; relay from 127.0.0.1; connections 10000 per-client; max-size 100MiB }}\n"
                + routes.get(mode, f"route default {{ via 127.0.0.1:{CLOSED}; tls off }}\n"))
        if tls:
            text += f"tls {{ certificate {self.folder}/cert.pem; key {self.folder}/key.pem }}\n"
        if mode == "maildir":
            (at / "mail").mkdir(exist_ok=True)
            shutil.chown(at / "mail", "bench", "bench")
            text += (f"domain local.test {{ mailbox {' '.join(f'u{n}' for n in range(BOXES))}\n"
                     f"deliver maildir {at}/mail/{{local}} user bench }}\n")
        config = self.folder / "postrider.conf"
        config.write_text(text, encoding="ascii")
        self.process = self.spawn(self.binary, "run", "--config", config, cpus=cpus)

    def page(self):
        return sh(self.binary, "queue", "list", "--config", self.folder / "postrider.conf", "--limit", "100")


class Postfix(Peer):
    name = "postfix"
    package = "postfix"
    main_cf = """compatibility_level = 3.6
queue_directory = {at}/queue
data_directory = {folder}/postfix.data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/postfix.maillog
maillog_file_prefixes = /var, /dev/stdout, {folder}
myhostname = mta.bench.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
alias_maps =
alias_database =
local_recipient_maps =
disable_dns_lookups = yes
smtp_host_lookup = native
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtp_tls_security_level = none
default_process_limit = 500
in_flow_delay = 0
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_event_limit_exceptions = static:all
qmgr_message_active_limit = 20000
qmgr_message_recipient_limit = 20000
default_destination_concurrency_limit = 50
initial_destination_concurrency = 20
virtual_destination_concurrency_limit = 50
smtp_connection_cache_on_demand = yes
smtp_connection_reuse_count_limit = 0
message_size_limit = 104857600
virtual_mailbox_limit = 0
"""
    master_cf = """127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
showq unix n - n - - showq
smtp unix - - n - 50 smtp
virtual unix - n n - 50 virtual
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

    def users(self):
        machine.add_user("postfix")
        machine.add_group("postdrop")

    def start(self, at, mode, tls, cpus=None):
        etc = self.folder / "postfix.etc"
        for path in (etc, self.folder / "postfix.data", at / "queue"):
            path.mkdir(exist_ok=True)
        shutil.chown(self.folder / "postfix.data", "postfix")
        text = self.main_cf.format(folder=self.folder, at=at)
        if mode == "hold":
            text += "smtpd_client_restrictions = check_client_access static:HOLD, permit\n"
        elif mode == "relay":
            text += f"default_transport = smtp:[127.0.0.1]:{SINK}\n"
        elif mode == "defer":
            text += f"default_transport = smtp:[127.0.0.1]:{CLOSED}\n"
        elif mode == "fanout":
            (etc / "transport").write_text("".join(f"d{n}.test smtp:[127.0.0.1]:{next_hop(n)}\n" for n in range(DOMAINS)),
                                           encoding="ascii")
            text += f"transport_maps = texthash:{etc}/transport\n"
        elif mode == "maildir":
            (at / "mail").mkdir(exist_ok=True)
            shutil.chown(at / "mail", "bench", "bench")
            (etc / "boxes").write_text("".join(f"u{n}@local.test u{n}/\n" for n in range(BOXES)), encoding="ascii")
            user = pwd.getpwnam("bench").pw_uid
            text += (f"virtual_mailbox_domains = local.test\nvirtual_mailbox_base = {at}/mail\n"
                     f"virtual_mailbox_maps = texthash:{etc}/boxes\n"
                     f"virtual_uid_maps = static:{user}\nvirtual_gid_maps = static:{user}\nvirtual_minimum_uid = 100\n")
        if tls:
            text += (f"smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {self.folder}/key.pem, {self.folder}/cert.pem\n"
                     "smtpd_tls_session_cache_database =\n")
        (etc / "main.cf").write_text(text, encoding="ascii")
        (etc / "master.cf").write_text(self.master_cf.format(port=PORT), encoding="ascii")
        if self.spawn("postfix", "-c", etc, "start", cpus=cpus).wait():  # its master goes on in the background
            raise RuntimeError(f"postfix does not start, see {self.folder}/postfix.log")

    def page(self):
        return sh("sh", "-c", f"postqueue -c {self.folder}/postfix.etc -p | head -n 400")  # four lines a message


class Opensmtpd(Peer):
    name = "opensmtpd"
    package = "opensmtpd"

    def users(self):
        machine.add_user("opensmtpd")
        machine.add_user("opensmtpq")
        shutil.chown("/usr/sbin/smtpctl", None, "opensmtpq")
        os.chmod("/usr/sbin/smtpctl", 0o2755)

    def start(self, at, mode, tls, cpus=None):
        spool = pathlib.Path("/var/spool/smtpd")
        for path in (at / "smtpd", spool, pathlib.Path("/var/lib/opensmtpd/empty"), pathlib.Path("/run/opensmtpd")):
            path.mkdir(parents=True, exist_ok=True)
        (at / "smtpd").chmod(0o711)
        sh("mount", "--bind", at / "smtpd", spool)
        text = "smtp max-message-size \"100M\"\nsmtp limit max-mails 1000000\nmta max-deferred 1000000\n"
        if tls:
            text += f"pki m cert \"{self.folder}/cert.pem\"\npki m key \"{self.folder}/key.pem\"\n"
        text += f"listen on 127.0.0.1 port {PORT}{' tls pki m' if tls else ''}\n"
        if mode == "fanout":
            text += "".join(f"action \"x{hop}\" relay host \"smtp://127.0.0.1:{SINK + hop}\"\n" for hop in range(NEXT_HOPS))
            text += "".join(f"match from any for domain \"d{n}.test\" action \"x{n % NEXT_HOPS}\"\n" for n in range(DOMAINS))
        else:
            hop = SINK if mode == "relay" else CLOSED
            text += f"action \"x\" relay host \"smtp://127.0.0.1:{hop}\"\nmatch from any for any action \"x\"\n"
        (self.folder / "smtpd.conf").write_text(text, encoding="ascii")
        self.process = self.spawn("/usr/sbin/smtpd", "-F", "-f", self.folder / "smtpd.conf", cpus=cpus)

    def ready(self, mode):
        if mode == "hold":
            sh("/usr/sbin/smtpctl", "pause", "mta")

    def stop(self):
        super().stop()
        subprocess.run(["umount", "/var/spool/smtpd"], capture_output=True, check=False)
        pathlib.Path("/run/smtpd.sock").unlink(missing_ok=True)


class Exim(Peer):
    name = "exim"
    package = "exim4-daemon-light exim4-base"

    def users(self):
        machine.add_user("Debian-exim")

    def start(self, at, mode, tls, cpus=None):
        port = "${eval:%d+(${sg{$domain}{\\\\D}{}})%%%d}" % (SINK, NEXT_HOPS) if mode == "fanout" else SINK if mode == "relay" else CLOSED
        text = f"""spool_directory = {at}/exim
log_file_path = {self.folder}/exim.%slog
exim_user = Debian-exim
exim_group = Debian-exim
primary_hostname = mta.bench.test
daemon_smtp_ports = {PORT}
local_interfaces = 127.0.0.1
disable_ipv6
host_lookup =
rfc1413_query_timeout = 0s
acl_smtp_rcpt = take
split_spool_directory = true
smtp_accept_max = 0
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
smtp_connect_backlog = 4096
smtp_accept_max_nonmail = -1
smtp_enforce_sync = false
queue_run_max = 20
remote_max_parallel = 20
message_size_limit = 100M
queue_only = {'true' if mode == 'hold' else 'false'}
"""
        text += (f"tls_advertise_hosts = *\ntls_certificate = {self.folder}/cert.pem\ntls_privatekey = {self.folder}/exim.key.pem\n"
                 if tls else "tls_advertise_hosts =\n")
        text += f"""begin acl
take:
  accept
begin routers
all:
  driver = manualroute
  route_list = * 127.0.0.1
  transport = out
  self = send
begin transports
out:
  driver = smtp
  port = {port}
  allow_localhost
  hosts_try_fastopen =
  hosts_avoid_tls = *
  connection_max_messages = 500
begin retry
* * F,2h,15m
"""
        shutil.copy(self.folder / "key.pem", self.folder / "exim.key.pem")  # each of its processes reads it, as who it is then
        shutil.chown(self.folder / "exim.key.pem", "Debian-exim")
        folder = pathlib.Path("/etc/exim4")
        folder.mkdir(exist_ok=True)
        (folder / "exim4.conf").write_text(text, encoding="ascii")
        (at / "exim").mkdir(exist_ok=True)
        shutil.chown(at / "exim", "Debian-exim", "Debian-exim")
        for name in ("main", "reject", "panic"):
            path = self.folder / f"exim.{name}log"
            path.touch()
            shutil.chown(path, "Debian-exim")
        self.process = self.spawn("/usr/sbin/exim4", "-bdf", "-oP", self.folder / "exim.pid", cpus=cpus)


class Haraka(Peer):
    name = "haraka"
    package = "Haraka"  # of npm
    plugin = """exports.register = function () { this.register_hook('rcpt', 'take'); this.register_hook('get_mx', 'hop') }
exports.take = function (next, connection) { connection.relaying = true; next(OK) }
exports.hop = function (next, hmail, domain) {
  const n = parseInt((domain.match(/\\d+/) || ['0'])[0])
  next(OK, { priority: 0, exchange: '127.0.0.1', port: +process.env.SINK + (process.env.MODE === 'fanout' ? n % +process.env.HOPS : 0) })
}
"""

    def start(self, at, mode, tls, cpus=None):
        root = at / "haraka"
        for name in ("config", "plugins", "queue"):
            (root / name).mkdir(parents=True, exist_ok=True)
        files = {
            "plugins/bench.js": self.plugin,
            "config/plugins": ("tls\n" if tls else "") + "bench\n",
            "config/me": "mta.bench.test\n",
            "config/loglevel": "LOGNOTICE\n",
            "config/log.ini": "level=notice\n",
            "config/smtp.ini": f"listen=127.0.0.1:{PORT}\nnodes=2\ninactivity_timeout=300\n",
            "config/outbound.ini": (f"disabled={'true' if mode == 'hold' else 'false'}\nenable_tls=false\nalways_split=false\n"
                                    "local_mx_ok=true\nconcurrency_max=100\npool_concurrency_max=20\n"),
            "config/tls.ini": "key=tls_key.pem\ncert=tls_cert.pem\n",
        }
        modules = self.folder / "node/node_modules"
        shutil.copy(modules / "Haraka/config/connection.ini", root / "config")
        for name, text in files.items():
            (root / name).write_text(text, encoding="ascii")
        for name in ("cert", "key"):
            shutil.copy(self.folder / f"{name}.pem", root / f"config/tls_{name}.pem")
        self.process = self.spawn("node", modules / "Haraka/bin/haraka", "-c", root, cpus=cpus,
                                  env={"SINK": str(SINK), "HOPS": str(NEXT_HOPS), "MODE": mode})


ALL = {peer.name: peer for peer in (Postrider, Postfix, Opensmtpd, Exim, Haraka)}
