"""Which host mail goes to, and what each reply means: MX lists of every kind, and the reply table of standards 5.2."""
import contextlib
import re
import smtplib

import pytest

from harness import Postrider, free_port, wait_until
from peers import ScriptedServer, Sink, name_server, own_network

CLOSE, RESET, STALL = ScriptedServer.CLOSE, ScriptedServer.RESET, ScriptedServer.STALL

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1; hostname mx.local.test }}
domain local.test {{ mailbox sender; alias postmaster -> sender; deliver maildir {mail}/{{domain}}/{{local}} }}
domain backup.test {{ recipients any; relay mx }}
domain asked.test mute.test {{ recipients verify; relay mx }}
route wait.test {{ via smtp://192.0.2.250; tls off }}
route office.test {{ via smtp://bücher.test; tls off }}
route default {{ direct; tls off; connect-wait 15s; reply-wait 15s }}
retry 1h for 1d {{ delay-notice off }}
resolver {{ forward 127.0.0.1 }}
"""


def start_message(server, *recipients):
    """Hands over a message to these and to one that waits for ever, so that `queue show` has the others' ends too."""
    with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
        return hand_over(client, *recipients)


def hand_over(client, *recipients):
    client.ehlo_or_helo_if_needed()
    assert client.mail("sender@local.test")[0] == 250
    for recipient in (*recipients, "anchor@wait.test"):
        assert client.rcpt(recipient)[0] == 250
    code, words = client.data(b"Subject: on its way\r\n\r\ntext\r\n")
    assert code == 250
    return re.search(r"\b[0-9a-z]{26}\b", words.decode()).group(0)


def fates(server, message, seconds=60):
    """{address: recipient of `queue show`} once every recipient has been tried."""
    def look():
        shown = {r["to"]: r for r in server.queue_show(message)["recipients"]}
        tried = [r["state"] != "pending" or r["attempts"] > 0 or (r["place"] == "unresolved" and r["reason"])
                 for r in shown.values() if not r["to"].startswith("anchor@")]
        return shown if all(tried) else None
    return wait_until(look, seconds, f"an end of {message} in {server.queue_show(message)}")


def end_of(recipient):
    return "deferred" if recipient["state"] == "pending" else recipient["state"].split(",")[0]


# ---- MX lists ------------------------------------------------------------------------------------------------------------

# Hosts, by their last number: 10, 11 and 12 listen (12 and v6 only there), 20 and 21 refuse connections, 203.0.113.1 is silent.
ZONE = """
good           MX 10 ten
ten            A 192.0.2.10
eleven         A 192.0.2.11
six            AAAA 2001:db8::6
dual           AAAA 2001:db8::20
dual           A 192.0.2.10
dead           A 192.0.2.20
dead2          A 192.0.2.21
silent         A 203.0.113.1
loopback       A 127.0.0.1
empty          TXT "no address"
alias          CNAME ten
self           A 192.0.2.1

dead-first     MX 10 dead
dead-first     MX 20 ten
all-dead       MX 10 dead
all-dead       MX 20 dead2
silent-first   MX 10 silent
silent-first   MX 20 ten
null           MX 0 .
null-there     MX 0 .
null-there     A 192.0.2.11
loop           MX 10 mx.local.test.
loop           MX 20 ten
loop-equal     MX 10 ten
loop-equal     MX 10 mx.local.test.
better         MX 5 eleven
better         MX 10 mx.local.test.
better         MX 20 ten
better-dead    MX 5 dead
better-dead    MX 10 mx.local.test.
better-dead    MX 20 ten
equal          MX 10 ten
equal          MX 10 eleven
six-only       MX 10 six
six-broken     MX 10 dual
lame-first     MX 10 host.lame.test.
lame-first     MX 20 ten
all-lame       MX 10 host.lame.test.
gone-first     MX 10 nowhere
gone-first     MX 20 ten
all-gone       MX 10 nowhere
all-gone       MX 20 nowhere2
no-address     MX 10 empty
no-mx          A 192.0.2.11
no-mx-six      AAAA 2001:db8::6
mx-no-fallback MX 10 empty
mx-no-fallback A 192.0.2.11
cname          CNAME good
mx-is-cname    MX 10 alias
mx-is-ip       MX 10 192.0.2.10.
to-loopback    MX 10 loopback
to-loopback2   MX 10 loopback
to-loopback2   MX 20 ten
to-ourselves   MX 10 self
"""
LONG = "-".join(["a-host-with-quite-a-long-name"] * 2)

# Domain, how it ends, status, and the hosts that may have got it.
MX_CASES = [
    ("good", "delivered", "2.", {"10"}),
    ("dead-first", "delivered", "2.", {"10"}),
    ("all-dead", "deferred", "4.4.1", set()),
    ("silent-first", "delivered", "2.", {"10"}),
    ("null", "failed", "5.1.10", set()),
    ("null-there", "failed", "5.1.10", set()),
    ("loop", "failed", "5.4.6", set()),
    ("loop-equal", "failed", "5.4.6", set()),
    ("better", "delivered", "2.", {"11"}),
    ("better-dead", "deferred", "4.4.1", set()),
    ("equal", "delivered", "2.", {"10", "11"}),
    ("six-only", "delivered", "2.", {"6"}),
    ("six-broken", "delivered", "2.", {"10"}),
    ("lame-first", "delivered", "2.", {"10"}),
    ("all-lame", "deferred", "4.4.3", set()),
    ("gone-first", "delivered", "2.", {"10"}),
    ("all-gone", "failed", "5.4.4", set()),
    ("no-address", "failed", "5.4.4", set()),
    ("no-mx", "delivered", "2.", {"11"}),
    ("no-mx-six", "delivered", "2.", {"6"}),
    ("mx-no-fallback", "failed", "5.4.4", set()),
    ("cname", "delivered", "2.", {"10"}),
    ("mx-is-cname", "delivered", "2.", {"10"}),
    ("mx-is-ip", "delivered", "2.", {"10"}),
    ("to-loopback", "failed", "5.4.4", set()),
    ("to-loopback2", "delivered", "2.", {"10"}),
    ("long-names", "delivered", "2.", {"10"}),
    ("the-tenth", "delivered", "2.", {"10"}),
    ("the-eleventh", "deferred", "4.4.1", set()),
    ("not-there-at-all", "failed", "5.1.2", set()),
    ("lame", "deferred", None, set()),
    ("[192.0.2.11]", "delivered", "2.", {"11"}),
    ("[IPv6:2001:db8::6]", "delivered", "2.", {"6"}),
]


@pytest.fixture(scope="module")
def network():
    with own_network():
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory, network):
    """Everything is sent at once; then each test looks at its own."""
    folder = tmp_path_factory.mktemp("routing")
    # Names so long that together they are more than one field of a link may have.
    zone = ZONE.splitlines() + [f"long-names MX {i} dead-{i}.{LONG}.{LONG}\ndead-{i}.{LONG}.{LONG} A 192.0.2.{100 + i}"
                                for i in range(9)] + ["long-names MX 50 ten"]
    # LIMIT_MX_HOSTS is 10: the tenth of a list is tried, the eleventh is not.
    zone += [f"{name} MX {i} closed-{i}\n" for name, dead in (("the-tenth", 9), ("the-eleventh", 10)) for i in range(dead)]
    zone += [f"closed-{i} A 192.0.2.{60 + i}" for i in range(10)] + ["the-tenth MX 50 ten", "the-eleventh MX 50 ten"]
    zone += [f"{name} MX {p} {name}-{h}\n{name}-{h} A {address}"
             for name, hosts in TABLE_HOSTS.items() for p, (h, address) in hosts.items()]
    hosts = {"10": "192.0.2.10", "11": "192.0.2.11", "6": "2001:db8::6"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(name_server(folder / "nsd", {
            "mx.test": [line for line in zone if line.strip()], "local.test": ["mx A 192.0.2.1"],
            "backup.test": ["@ MX 5 ten", "ten A 192.0.2.10", "@ MX 10 mx.local.test."],
            "asked.test": ["@ MX 5 knows", "knows A 192.0.2.30", "@ MX 10 mx.local.test.", "@ MX 20 ten.backup.test."],
            "twin.test": ["@ MX 5 silent", "silent A 203.0.113.1", "@ MX 10 another-name", "another-name A 192.0.2.1"],
            "itself.test": ["@ MX 5 dead", "dead A 192.0.2.20", "@ MX 10 another-name", "another-name A 192.0.2.1"],
            "second.test": ["@ MX 5 dead", "dead A 192.0.2.21", "@ MX 10 second.local.test."],
            "xn--bcher-kva.test": ["@ MX 10 ten.backup.test.", "@ A 192.0.2.11"],
            "mute.test": ["@ MX 5 silent", "silent A 203.0.113.1", "@ MX 10 mx.local.test."],
        }, broken=["lame.test", "lame.mx.test"]))
        servers = {name: stack.enter_context(ScriptedServer(port=25, host=address)) for name, address in hosts.items()}
        stack.enter_context(ScriptedServer({"RCPT": lambda line, _: None if "<known@" in line else "550 5.1.1 nobody"},
                                           port=25, host="192.0.2.30"))
        table = {name: [stack.enter_context(ScriptedServer(answers, port=25, host=host[1]))
                        for answers, host in zip((TABLE_ANSWERS[name], {}), TABLE_HOSTS[name].values())]
                 for name in TABLE_HOSTS}
        second = "listen mx second {{ address 127.0.0.2:{port}; hostname second.local.test }}\n"
        server = stack.enter_context(Postrider(folder / "server", config=SITE + second))
        sent = {}
        with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
            for domain, *_ in MX_CASES:
                sent[domain] = hand_over(client, "x@" + (domain if domain.startswith("[") else domain + ".mx.test"))
            for name in TABLE_HOSTS:
                sent[name] = hand_over(client, f"x@{name}.mx.test", f"y@{name}.mx.test")
        yield {"server": server, "hosts": servers, "sent": sent, "table": table}


def got(server, address):
    return sum(any(f"<{address}>" in rcpt.lower() for rcpt in rcpts) for _, rcpts, _ in list(server.messages))


def test_a_backup_by_a_listeners_name_waits_while_the_better_host_is_down(world):
    for address in ("first@second.test", "next@second.test"):  # the second while the queue thinks that host down
        fate = fates(world["server"], start_message(world["server"], address))[address]
        assert end_of(fate) == "deferred" and fate["reply"].startswith("4.4.1"), fate


# ---- the reply table -----------------------------------------------------------------------------------------------------

REPLIES = {
    "4xx": "450 4.7.0 not now",
    "5xx": "550 5.7.0 never",
    "421": "421 4.3.2 closing",
    "close": CLOSE,
    "reset": RESET,
    "stall": STALL,
    "3xx": "334 out of place",
    "malformed": "what?",
    "2xx": "299 why not",
}
LOST = ("close", "reset", "stall", "3xx", "malformed")


def table_cases():
    """(where, what, what becomes of x with one host, and with another behind it): "next" is the second host."""
    for what in REPLIES:
        if what == "2xx":  # counts as success, but for DATA, where it is as good as lost
            yield from ((where, what, "first", "first") for where in ("GREETING", "EHLO", "MAIL", "RCPT", "DOT"))
            yield "DATA", what, "deferred", "next"
            continue
        lost = what in LOST
        yield "GREETING", what, "deferred", "next"
        yield "EHLO", what, "first" if lost or what == "5xx" else "deferred", "first" if lost or what == "5xx" else "next"
        yield "MAIL", what, *(("failed", "failed") if what == "5xx" else ("deferred", "next"))
        yield "RCPT", what, *{"5xx": ("failed", "failed"), "4xx": ("deferred", "deferred"),
                              "421": ("deferred", "deferred")}.get(what, ("deferred", "next"))
        yield "DATA", what, *(("failed", "failed") if what == "5xx" else ("deferred", "next"))
        yield "DOT", what, *(("failed", "failed") if what == "5xx" else ("deferred", "deferred"))
        yield "QUIT", what, "first", "first"


TABLE_CASES = [case for case in table_cases() if not (case[0] == "QUIT" and case[1] in ("4xx", "5xx", "421"))]
TABLE_HOSTS, TABLE_ANSWERS = {}, {}
for _where, _what, *_ in TABLE_CASES:
    for _kind in ("one", "two"):
        _name, _at = f"{_where}-{_what}-{_kind}".lower(), len(TABLE_HOSTS)
        TABLE_HOSTS[_name] = {10: ("a", f"198.51.100.{_at + 1}")}
        if _kind == "two":
            TABLE_HOSTS[_name][20] = ("b", f"192.0.2.{128 + _at // 2}")
        _reply = REPLIES[_what]
        TABLE_ANSWERS[_name] = {_where: _reply}
        if _where == "RCPT":  # the first recipient only
            TABLE_ANSWERS[_name] = {"RCPT": lambda line, _, reply=_reply: reply if "<x@" in line else None}


@pytest.mark.parametrize("case", MX_CASES, ids=lambda case: case[0])
def test_mx_lists(world, case):
    domain, end, status, hosts = case
    server = world["server"]
    address = "x@" + (domain.lower() if domain.startswith("[") else domain + ".mx.test")
    fate = fates(server, world["sent"][domain])[address]
    assert end_of(fate) == end, fate
    told = fate["reply"] or fate["reason"]
    if status:
        assert told.startswith(status), fate
    reached = {name for name, host in world["hosts"].items() if got(host, address)}
    assert bool(reached) == bool(hosts) and reached <= hosts
    assert sum(got(host, address) for host in world["hosts"].values()) == (1 if hosts else 0)


def test_names_in_u_labels_are_asked_of_dns_in_a_labels(world):
    with smtplib.SMTP("127.0.0.1", world["server"].port, timeout=60) as client:
        client.ehlo("client.test")
        client.mail("sender@local.test", ["SMTPUTF8", "BODY=8BITMIME"])
        for to in ("x@bücher.test", "x@office.test"):  # its MX record; and a smarthost's address
            assert client.rcpt(to)[0] == 250
        assert client.data(b"Subject: books\r\n\r\ntext\r\n")[0] == 250
    wait_until(lambda: got(world["hosts"]["10"], "x@xn--bcher-kva.test"), 60, "the mail for a domain in U-labels")
    wait_until(lambda: got(world["hosts"]["11"], "x@office.test"), 60, "the mail for a smarthost in U-labels")


def test_equal_preferences_share_the_mail(world):
    """20 messages, some to each of both; that one host gets all by chance is 1 in 500,000."""
    server = world["server"]
    for i in range(20):
        server.send("sender@local.test", f"equal{i}@equal.mx.test")
    count = {}
    def all_there():
        for name in ("10", "11"):
            count[name] = sum(got(world["hosts"][name], f"equal{i}@equal.mx.test") for i in range(20))
        return sum(count.values()) == 20
    wait_until(all_there, 60, "20 messages")
    assert min(count.values()) > 0


def test_a_backup_passes_on_to_better_hosts_only(world):
    server = world["server"]
    message = start_message(server, "x@backup.test")
    assert end_of(fates(server, message)["x@backup.test"]) == "delivered"
    assert got(world["hosts"]["10"], "x@backup.test") == 1


def test_a_backup_knows_itself_by_whatever_name(network, world, tmp_path):
    """It listens everywhere, so has no list of its addresses, and the MX record has a name that its configuration does not."""
    config = SITE.replace("address 127.0.0.1:{port}", "address :{port}").replace("direct;", "direct; port {port};") \
                 .replace("domain backup.test", "domain twin.test")
    with Postrider(tmp_path / "server", config=config) as server:
        message = start_message(server, "x@twin.test")
        fate = fates(server, message)["x@twin.test"]
        assert end_of(fate) == "deferred" and "4.4.1" in str(fate), fate


def test_a_backup_asks_better_hosts_whom_they_know(world):
    with smtplib.SMTP("127.0.0.1", world["server"].port, timeout=60) as client:
        client.ehlo("client.test")
        client.mail("a@client.test")
        assert client.rcpt("known@asked.test")[0] == 250
        code, words = client.rcpt("nobody@asked.test")
        assert code == 550 and b"5.1.1" in words


def test_a_backup_does_not_ask_itself(network, world, tmp_path):
    """The better host is down, and the next in the MX list is this one by a name that it does not know."""
    config = SITE.replace("address 127.0.0.1:{port}", "address 127.0.0.1:{port} 192.0.2.1:25").replace("mute.test", "itself.test")
    with Postrider(tmp_path, config=config) as server:
        with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
            client.ehlo("client.test")
            client.mail("a@client.test")
            assert client.rcpt("x@itself.test")[0] == 450
        asked = wait_until(lambda: [e for e in server.log_events("session") if "192.0.2.1" in e["client"]], what="its own visit")
        assert len(asked) == 1 and asked[0]["recipients"] == 0, asked


def test_nobody_is_asked_in_clear_where_tls_is_required(world, tmp_path):
    """Whom a message is from and to is told to no better host before TLS: then all are taken, as by "recipients any"."""
    with Postrider(tmp_path, config=SITE.replace("tls off; connect", "tls require; connect")) as server:
        with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
            client.ehlo("client.test")
            client.mail("a@client.test")
            assert client.rcpt("nobody@asked.test")[0] == 250


def test_a_host_that_is_silent_costs_no_other_domain_its_answer(world):
    """mute.test is described together with asked.test; its better host takes no connection for half a minute."""
    with smtplib.SMTP("127.0.0.1", world["server"].port, timeout=90) as client:
        client.ehlo("client.test")
        client.mail("a@client.test")
        assert [client.rcpt(who)[0] for who in ("x@mute.test", "y@mute.test", "nobody-else@asked.test")] == [450, 450, 550]


@pytest.mark.parametrize("kind", ["one", "two"])
@pytest.mark.parametrize("case", TABLE_CASES, ids=lambda case: f"{case[0]}-{case[1]}".lower())
def test_reply_table(world, case, kind):
    where, what, alone, with_next = case
    name = f"{where}-{what}-{kind}".lower()
    expected = alone if kind == "one" else with_next
    shown = fates(world["server"], world["sent"][name], 90)
    servers = world["table"][name]
    for who in "xy":
        address = f"{who}@{name}.mx.test"
        want = expected
        if where == "RCPT" and who == "y" and what in ("4xx", "5xx"):
            want = "first"
        fate = shown[address]
        assert end_of(fate) == {"next": "delivered", "first": "delivered"}.get(want, want), fate
        taken = [got(s, address) for s in servers]
        assert taken == {"first": [1, 0], "next": [0, 1]}.get(want, [0, 0])[: len(servers)]
        if want == "deferred":
            assert re.match(r"4\.\d+\.\d+ ", fate["reply"]), fate
        if want == "failed":
            assert fate["reply"].startswith("5.7.0 550 5.7.0 never"), fate
    if where == "EHLO" and expected == "first" and what != "2xx":
        assert servers[0].sessions == (1 if what == "5xx" else 2)
        assert any(line.startswith("HELO ") for line in servers[0].commands)
    if where == "DOT" and kind == "two":
        assert servers[1].sessions == 0  # nobody knows: another host might be a duplicate


# ---- next hops that come round -------------------------------------------------------------------------------------------

HOP_SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1 }}
domain local.test {{ mailbox sender; alias postmaster -> sender; deliver maildir {mail}/{{domain}}/{{local}} }}
route wait.test {{ via smtp://127.0.0.1:1; tls off }}
route default {{ via smtp://127.0.0.1:{next_port}; tls off; reply-wait 15s }}
retry {retry} for 1h
"""


def test_down_then_greylisting_then_taken(tmp_path):
    with Postrider(tmp_path / "server", config=HOP_SITE, next_port=free_port(), retry="1s") as server:
        server.send("sender@local.test", "x@far.test")
        (message,) = server.queue()
        def reply(text):
            (recipient,) = server.queue_show(message["id"])["recipients"]
            return text in recipient["reply"] + recipient["reason"]
        wait_until(lambda: reply("cannot connect"), 30, "a next hop that is down")
        with Sink(tmp_path / "sink", "--greylist", port=server.values["next_port"]) as sink:
            wait_until(lambda: any("Greylisted" in e["reply"] for e in server.log_events("attempt")), 30, "greylisting")
            wait_until(lambda: len(sink.envelopes()) == 1, 60, "the message")
            server.wait_until_empty()
        server.logged("attempt", result="delivered")
        results = [e["result"] for e in server.log_events("attempt")]
        assert results[-1] == "delivered" and set(results[:-1]) == {"deferred"} and len(results) >= 3
        assert any("Greylisted" in e["reply"] for e in server.log_events("attempt"))


def test_one_of_five_recipients_is_refused(tmp_path):
    with Sink(tmp_path / "sink", "--obey") as sink:
        with Postrider(tmp_path / "server", config=HOP_SITE, next_port=sink.port, retry="1h") as server:
            message = start_message(server, "a@far.test", "b@far.test", "550-c@far.test", "d@far.test", "e@far.test")
            shown = fates(server, message)
            assert {name for name, fate in shown.items() if end_of(fate) == "delivered"} == {
                "a@far.test", "b@far.test", "d@far.test", "e@far.test"}
            assert end_of(shown["550-c@far.test"]) == "failed"
            (notice,) = server.wait_for_mail("sender")
            assert notice.count(b"Final-Recipient") == 1 and b"550-c@far.test" in notice
            (envelope,) = sink.envelopes()
            assert len(envelope["rcpt"]) == 4


def test_a_host_that_takes_no_mail_at_all(tmp_path):
    """521 in every host's greeting is an answer; RFC 7504."""
    with ScriptedServer({"GREETING": "521 takes no mail"}) as hop:
        with Postrider(tmp_path / "server", config=HOP_SITE, next_port=hop.port, retry="1h") as server:
            message = start_message(server, "x@far.test")
            fate = fates(server, message)["x@far.test"]
            assert end_of(fate) == "failed" and "521" in fate["reply"]


@pytest.mark.parametrize("reply", ["552 5.5.3 too many", "452 4.5.3 too many", "452 too many", "552 too many"])
def test_too_many_recipients_are_split(tmp_path, reply):
    """Without an enhanced code, 452 and 552 speak of the count where others were taken before: standards 5.2."""
    limit = 50
    taken = {"now": 0}
    def rcpt(_line, _server):
        taken["now"] += 1
        return reply if taken["now"] > limit else None
    def mail(_line, _server):
        taken["now"] = 0
    with ScriptedServer({"RCPT": rcpt, "MAIL": mail}) as hop:
        with Postrider(tmp_path / "server", config=HOP_SITE.replace("reply-wait", "connections 1; reply-wait"),
                       next_port=hop.port, retry="1s") as server:
            recipients = [f"r{i}@far.test" for i in range(limit + 5)]
            server.send("sender@local.test", recipients)
            server.wait_until_empty(60)
            passed = [re.search("<(.*)>", rcpt).group(1) for _, rcpts, _ in hop.messages for rcpt in rcpts]
            assert sorted(passed) == sorted(recipients)
            assert server.mails("sender") == []


@pytest.mark.parametrize("how", [RESET, CLOSE, STALL], ids=["reset", "close", "stall"])
def test_the_content_stops_in_the_middle(tmp_path, how):
    """
    The server goes away while 8 MiB are on their way, or does not even read them any more: not taken, so the next attempt
    brings all of it.
    """
    times = []
    def once(_line, server):
        times.append(1)
        if len(times) > 1:
            return None
        if how is STALL:  # the server's own STALL reads on, and throws away
            wait_until(lambda: server.sessions > 1, 60, "another attempt")
            return CLOSE
        return how
    text = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * (8 * 1024 * 1024 // 78)
    with ScriptedServer({"CONTENT": once}) as hop:
        with Postrider(tmp_path / "server", config=HOP_SITE, next_port=hop.port, retry="1s") as server:
            server.send("sender@local.test", "x@far.test", text)
            server.wait_until_empty(120)
            assert len(times) == 2
            ((_, _, content),) = hop.messages
            assert content.endswith(text)
