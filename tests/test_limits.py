"""Each limit of base/limits.h, reached and exceeded by one: the first is taken, the second gets a clear answer, and nothing
else suffers. A limit that is missing here fails test_every_limit_is_exceeded_by_one().
"""
import os
import re
import socket
import subprocess
import threading

import pytest

from harness import SOURCE, Postrider, free_port, wait_until
from peers import Client, ScriptedServer

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port} }}
listen mx trusted {{ address 127.0.0.1:{trusted}; relay from 127.0.0.1; max-size 8MiB; wrong-commands 3; idle-commands 10 }}
domain local.test {{
    mailbox ok
    alias postmaster -> ok
    {aliases}
    deliver maildir {mail}/{{domain}}/{{local}}
}}
route default {{ via 127.0.0.1:{next_port}; tls off }}
retry 1h for 5d
"""
SHOWN = set()  # the limits of the tests below

# What wants another world than this file has; those tests name the limit.
ELSEWHERE = {
    "MIME_DEPTH": "src/message/convert_test.c",
    "MX_HOSTS": "tests/test_routing.py",
    "MX_ADDRESSES": "src/deliver/smtp_test.c",
    "FRAME_BODY": "src/link/link_test.c",
    "CONTENT_INLINE": "src/spool/log/log_test.c",
    "REPLY_LINE": "src/smtp/reply_test.c",  # what we say ourselves
    "SESSIONS": "tests/test_scale.py",      # with POSTRIDER_FULL=1
    "SESSIONS_LOCAL": "tests/test_hostile.py",
    "AUTH_LINE": "src/smtp/server_tls_test.c",
    "AUTH_FAILURES": "src/smtp/server_tls_test.c",
    "AUTH_MESSAGE": "src/role/border_test.c",  # between roles; on the wire AUTH_LINE comes first
    "USER_NAME": "src/sasl/prepare_test.c",
    "USER_SENDERS": "src/sasl/users_test.c",
    "AUTHORS": "tests/test_submission.py",
    "DELIVERIES": "src/queue/queue_test.c",
}
# Limits of time: smtp/server_test.c and client_test.c wait one second less and one more, by a clock that leaps.
IN_SECONDS = {"RATE_BYTES"}


def shows(*limits):
    SHOWN.update(limits)
    return lambda function: function


def aliases_in_a_row(count):
    """deepN leads over N aliases to ok; each has somebody else besides."""
    return ["alias deep1 -> ok x1@next.test", *(f"alias deep{n} -> deep{n - 1} x{n}@next.test" for n in range(2, count + 1))]


@pytest.fixture(scope="module")
def next_hop():
    with ScriptedServer({"RCPT": answer_to_rcpt}) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory, next_hop):
    trusted = free_port()
    with Postrider(tmp_path_factory.mktemp("limits"), SITE, trusted=trusted, next_port=next_hop.port,
                   aliases="; ".join(aliases_in_a_row(20))) as one:
        one.trusted = trusted
        before = one.role_pids()
        yield one
        assert one.role_pids() == before, "a role ended"
        assert one.figures()["balanced"] == 1


# ---- lines ----

def name(length):
    """A domain of that many bytes, with labels of 63 at most."""
    labels = ["d" * 63] * ((length - 1) // 64)
    rest = length - 64 * len(labels)
    if rest == 64:
        labels, rest = [*labels, "d" * 61], 2
    return ".".join([*labels, "d" * rest])


LINES = [  # limit, a line of a size, the limit, the code for it and for one more, a word of that answer
    ("COMMAND_LINE", lambda n: "NOOP " + "x" * (n - 7), 2048, 250, 500, "2048"),
    ("PATH", lambda n: f"RCPT TO:<{'l' * (n - 10)}@next.test>", 1024, 250, 501, "long"),
    ("DOMAIN", lambda n: f"RCPT TO:<a@{name(n)}>", 255, 250, 501, "address"),
    ("DOMAIN", lambda n: f"RCPT TO:<a@{'l' * n}.next.test>", 63, 250, 501, "address"),
    ("ORCPT", lambda n: f"RCPT TO:<a@next.test> ORCPT=rfc822;{'o' * (n - 7)}", 500, 250, 501, "ORCPT"),
    ("ENVID", lambda n: f"MAIL FROM:<a@client.test> ENVID={'e' * n}", 100, 250, 501, "ENVID"),
    ("MESSAGE_SIZE", lambda n: f"MAIL FROM:<a@client.test> SIZE={n}", 8 << 20, 250, 552, "larger"),
    ("HELO", lambda n: f"EHLO {'h' * n}", 255, 250, 501, "long"),
]
shows(*(row[0] for row in LINES))


@pytest.mark.parametrize(("limit", "line", "most", "taken", "refused", "word"), LINES, ids=[row[0] for row in LINES])
def test_lines(server, limit, line, most, taken, refused, word):
    with Client(server.trusted) as client:
        if line(1).startswith("RCPT"):
            client.say(b"MAIL FROM:<a@client.test>\r\n", 250)
        text = client.say(line(most + 1).encode() + b"\r\n", refused)
        assert word.lower() in text.lower(), text
        client.say(line(most).encode() + b"\r\n", taken)
        client.say(b"RSET\r\n", 250)


# ---- content ----

HEADER = b"Subject: x\r\n"
CONTENTS = [  # limit, content of a size, the limit, the code of the refusal, a word of it
    ("TEXT_LINE", lambda n: HEADER + b"\r\n" + b"x" * n + b"\r\n", 1 << 20, 554, "long"),
    ("HEADER_BYTES", lambda n: b"X-Long: " + b"h" * 100 + b"\r\n" + (b"X: " + b"h" * 995 + b"\r\n") * 1000 +
     b"Y: " + b"y" * (n - 110 - 1000000 - 7) + b"\r\n\r\nbody\r\n", 1 << 20, 554, "header"),
    ("RECEIVED_HOPS", lambda n: b"Received: from a by b; x\r\n" * n + b"\r\nx\r\n", 100, 554, "loop"),
    ("MESSAGE_SIZE", lambda n: HEADER + b"\r\n" + (b"x" * 998 + b"\r\n") * ((n - 14) // 1000) +
     b"y" * ((n - 14) % 1000 - 2) + b"\r\n", 8 << 20, 552, "larger"),
]
shows(*(row[0] for row in CONTENTS))


@pytest.mark.parametrize(("limit", "content", "most", "refused", "word"), CONTENTS, ids=[row[0] for row in CONTENTS])
def test_content(server, limit, content, most, refused, word):
    for way in ("DATA", "BDAT"):
        with Client(server.trusted) as client:
            for size, code in ((most, 250), (most + 1, refused), (most, 250)):
                client.begin()
                if way == "DATA":
                    client.say(b"DATA\r\n", 354)
                    client.send(content(size) + b".\r\n")
                else:
                    client.send(b"BDAT %d LAST\r\n" % len(content(size)) + content(size))
                got, text = client.reply()
                assert got == code, (way, size, got, text)
                assert code == 250 or word in text, text
                if way == "BDAT" and code != 250:
                    client.say(b"RSET\r\n", 250)


@shows("BDAT_CHUNKS")
def test_chunks(server):
    with Client(server.trusted) as client:
        for count, code in ((20000, 250), (20001, 554)):
            client.begin()
            for _ in range((count - 2) // 1000):
                client.send(b"BDAT 1\r\nx" * 1000)
                assert {client.reply()[0] for _ in range(1000)} == {250}
            for _ in range((count - 2) % 1000):
                client.say(b"BDAT 1\r\nx", 250)
            client.say(b"BDAT 2\r\n\r\n", 250)
            text = client.say(b"BDAT 0 LAST\r\n", code)
            assert code == 250 or "chunks" in text, text


# ---- commands and sessions ----

@shows("RCPT_PER_TRANSACTION", "RCPT_COMMANDS")
def test_recipients(server):
    with Client(server.trusted) as client:
        client.say(b"MAIL FROM:<a@client.test>\r\n", 250)
        lines = b"".join(b"RCPT TO:<r%d@next.test>\r\n" % n for n in range(10001))
        sender = threading.Thread(target=client.send, args=(lines,))
        sender.start()
        codes = [client.reply()[0] for _ in range(10001)]
        sender.join()
        assert codes == [250] * 1000 + [452] * 9000 + [421]
        assert client.reply()[0] == 0


@pytest.mark.parametrize(("limit", "first", "line", "count", "code"), [
    ("WRONG_COMMANDS", [], b"FROB\r\n", 20, 500),
    ("IDLE_COMMANDS", [], b"NOOP\r\n", 99, 250),  # EHLO counts
    ("RCPT_REFUSED", [b"MAIL FROM:<a@client.test>\r\n"], b"RCPT TO:<nobody@local.test>\r\n", 20, 550),
])
@shows("WRONG_COMMANDS", "IDLE_COMMANDS", "RCPT_REFUSED")
def test_commands(server, limit, first, line, count, code):
    with Client(server.port) as client:
        for one in first:
            client.say(one, 250)
        for _ in range(count):
            client.say(line, code)
        client.say(line, 421)
        assert client.reply()[0] == 0


@pytest.mark.parametrize(("line", "count", "code"), [(b"FROB\r\n", 3, 500), (b"NOOP\r\n", 9, 250)])
def test_commands_may_be_limited_otherwise(server, line, count, code):
    with Client(server.trusted) as client:
        for _ in range(count):
            client.say(line, code)
        client.say(line, 421)
        assert client.reply()[0] == 0


@shows("SESSIONS_PER_CLIENT")
def test_sessions_of_a_client(server):
    def session():
        s = socket.create_connection(("127.0.0.1", server.port), 30, source_address=("127.0.0.50", 0))
        return s, s.recv(512)

    sessions = [session() for _ in range(50)]
    try:
        assert all(greeting.startswith(b"220 ") for _, greeting in sessions)
        s, greeting = session()
        s.close()
        assert greeting.startswith(b"421 4.7.0 "), greeting
        sessions.pop()[0].close()
        assert wait_until(lambda: session()[1].startswith(b"220 "), 60, "room for another")
    finally:
        for s, _ in sessions:
            s.close()


# ---- aliases and configuration ----

def test_aliases_of_aliases(server, next_hop):
    mails = len(server.mails())
    server.send(to="deep20@local.test")
    server.wait_for_mail(count=mails + 1)
    wait_until(lambda: {f"RCPT TO:<x{n}@next.test>" for n in range(1, 21)} <= {
        line.split(" NOTIFY")[0].split(" ORCPT")[0] for _, rcpt, _ in list(next_hop.messages) for line in rcpt}, 30, "all 20")


def check(folder, more, **files):
    """`postrider check` on a site with more in it: (exit code, what it says)."""
    for file, text in files.items():
        (folder / file).write_text(text, encoding="ascii")
    site = SITE.replace("{{ address 127.0.0.1:{trusted}", "{{ address 127.0.0.1:2")
    server = Postrider(folder, site, aliases="", next_port=3)
    with open(server.config_path, "a", encoding="ascii") as config:
        config.write(more)
    result = server.cli("check", "--config", str(server.config_path), check=False)
    return result.returncode, result.stdout + result.stderr


def members(count):
    return "".join(f"m{n}@next.test\n" for n in range(count))


def includes(depth):
    return {f"file{n}": f"include file{n + 1}\n" if n < depth else "" for n in range(1, depth + 1)}


def listener(name, addresses):
    return f"listen mx {name} {{ address {' '.join(f'127.0.0.1:{3000 + n}' for n in range(addresses))} }}\n"


DOMAIN = "domain d.test {{ deliver maildir {{mail}}/d; mailbox ok; alias postmaster -> ok; {} }}\n"


@pytest.mark.parametrize(("limit", "more", "files", "refused", "files_refused", "word"), [
    ("MAILBOX_NAME", DOMAIN.format("mailbox " + "m" * 64), {}, DOMAIN.format("mailbox " + "m" * 65), {}, "64"),
    ("RCPT_EXPANDED", DOMAIN.format("alias list -> include:list"), {"list": members(10000)},
     DOMAIN.format("alias list -> include:list"), {"list": members(10001)}, "10000"),
    ("ALIAS_DEPTH", DOMAIN.format("; ".join(aliases_in_a_row(20))), {},
     DOMAIN.format("; ".join(aliases_in_a_row(21))), {}, '"deep21" leads over more than 20 aliases in a row'),
    ("LISTENER_NAME", listener("n" * 63, 1), {}, listener("n" * 64, 1), {}, "63 bytes"),
    ("LISTEN_ADDRESSES", listener("many", 62), {}, listener("many", 63), {}, "64 addresses"),  # the site has two
    ("CONF_INCLUDES", "include file1\n", includes(9), "include file1\n", includes(11), "10"),
    ("CONFIG_BYTES", "include large\n", {"large": "# " + "x" * (63 << 20) + "\n"}, "include large\n",
     {"large": "# " + "x" * (64 << 20) + "\n"}, "is too long"),
], ids=lambda value: value if isinstance(value, str) and re.fullmatch("[A-Z_]+", value) else "")
@shows("ALIAS_DEPTH", "LISTENER_NAME", "LISTEN_ADDRESSES", "MAILBOX_NAME", "RCPT_EXPANDED", "CONFIG_BYTES")
def test_configurations(tmp_path, limit, more, files, refused, files_refused, word):
    mail = str(tmp_path)
    code, text = check(tmp_path, more.replace("{mail}", mail), **files)
    assert code == 0, text
    code, text = check(tmp_path, refused.replace("{mail}", mail), **files_refused)
    assert code == 78 and word in text, (code, text[:2000])


def test_a_site_that_is_as_large_as_it_may_be(tmp_path):
    """What `check` calls good is so for every role: the most addresses in one pool, routes that log in, directories for mail."""
    port = free_port()
    (tmp_path / "secret").write_text("secret", encoding="ascii")
    (tmp_path / "secret").chmod(0o600)
    config = ["hostname mx.local.test", "state {state}", "users file users",
              f"listen submission {{{{ address {' '.join(f'127.0.0.{n}:{port}' for n in range(2, 66))} }}}}"]
    config += [f"domain d{n}.test {{{{ mailbox ok; alias postmaster -> ok; deliver maildir {{mail}}/{n}/{{{{local}}}} }}}}"
               for n in range(256)]
    config += [f"route r{n}.test {{{{ via smtp://127.0.0.1:1 {{{{ user u; password-file secret }}}} }}}}" for n in range(256)]
    with Postrider(tmp_path, "\n".join(config)) as server:
        subprocess.run([str(server.binary), "sendmail", "ok@d0.test", "ok@d255.test"], input=b"Subject: x\n\nx\n", check=True,
                       env=dict(os.environ, POSTRIDER_CONFIG=str(server.config_path)), timeout=120)
        for n in (0, 255):
            wait_until(lambda new=server.mail / str(n) / "ok" / "new": new.is_dir() and list(new.iterdir()), what="mail")
        assert all(role["restarts"] == 0 for role in server.status()["roles"])
        for n in (2, 65):
            with socket.create_connection((f"127.0.0.{n}", port), timeout=60) as client:
                assert client.recv(3) == b"220"


# ---- next hops ----

REPLIES = {  # what "RCPT TO:<KEY@next.test>" is answered
    "lines100": "\r\n".join(["550-x"] * 99 + ["550 5.7.1 the last of 100"]),
    "lines101": "\r\n".join(["550-x"] * 100 + ["550 5.7.1 the last of 101"]),
    "line4096": "550 5.7.1 " + "x" * (4096 - 12),
    "line4097": "550 5.7.1 " + "x" * (4097 - 12),
}


def answer_to_rcpt(line, _):
    return REPLIES.get(line.split("<")[1].split("@")[0])


@pytest.mark.parametrize("key", REPLIES)
@shows("REPLY_LINES", "REPLY_LINE_READ", "REPLY_TEXT")
def test_replies(server, key):
    """A reply within the limits is taken, and its recipient has failed; a larger one is nonsense, and it is tried again."""
    with Client(server.trusted) as client:
        client.begin(f"{key}@next.test".encode())
        client.say(b"DATA\r\n", 354)
        client.say(b"Subject: x\r\n\r\nx\r\n.\r\n", 250)
    attempt = wait_until(lambda: [event for event in server.log_events("attempt") if event["to"].startswith(key)], 30,
                         "an attempt")[0]
    assert attempt["result"] == ("failed" if key in ("lines100", "line4096") else "deferred"), attempt
    assert len(attempt["reply"]) <= 1024
    server.cli("queue", "rm", "--all", "--config", str(server.config_path), check=False)


@shows("RCPT_PER_JOB")
def test_recipients_of_a_job(server, next_hop):
    for count, transactions in ((100, [100]), (101, [1, 100])):
        with Client(server.trusted) as client:
            client.say(b"MAIL FROM:<a@client.test>\r\n", 250)
            for n in range(count):
                client.say(b"RCPT TO:<r%d@next.test>\r\n" % n, 250)
            client.say(b"DATA\r\n", 354)
            client.say(b"Subject: to %d\r\n\r\nx\r\n.\r\n" % count, 250)
        name = b"Subject: to %d\r\n" % count
        sizes = wait_until(lambda: enough(count, [len(rcpt) for _, rcpt, content in next_hop.messages if name in content]), 60,
                           "all of them")
        assert sorted(sizes) == transactions


def enough(count, sizes):
    return sizes if sum(sizes) >= count else None


# ---- all of them ----

def test_every_limit_is_exceeded_by_one():
    header = (SOURCE / "src/base/limits.h").read_text(encoding="ascii")
    limits = set(re.findall(r"^ +LIMIT_([A-Z0-9_]+) +=", header, re.M)) | set(
        re.findall(r"^#define LIMIT_([A-Z0-9_]+) ", header, re.M))
    limits = {limit for limit in limits if not limit.endswith("_NS")} - IN_SECONDS
    for limit, file in ELSEWHERE.items():
        assert f"LIMIT_{limit}" in (SOURCE / file).read_text(encoding="utf-8"), (limit, file)
    assert limits == SHOWN | set(ELSEWHERE)
