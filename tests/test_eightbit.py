"""Bytes beyond ASCII, through the whole daemon: MIME converted for a next hop that takes 7 bits only, and
internationalized mail (RFC 6531) to hops that take it, that do not, and that take neither that nor 8 bits.
"""
import base64
import email
import itertools
import pathlib
import re
import smtplib

import pytest

import test_mime_convert as suites
from harness import Postrider, wait_until, without_trace
from peers import Sink

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1; max-size 20MiB }}
domain local.test {{ mailbox ok jürgen; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route full.test {{ via 127.0.0.1:{full}; tls off }}
route eight.test {{ via 127.0.0.1:{eight}; tls off }}
route default {{ via 127.0.0.1:{seven}; tls off }}
"""
TRACE = re.compile(rb"Received: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")


class Hops:
    """The daemon, with three next hops behind it that keep what they get."""

    def __init__(self, folder):
        self.sinks = {
            "full": Sink(folder / "full"),
            "eight": Sink(folder / "eight", "--without", "SMTPUTF8"),
            "seven": Sink(folder / "seven", "--without", "8BITMIME,SMTPUTF8,CHUNKING,BINARYMIME"),
        }
        ports = {name: sink.port for name, sink in self.sinks.items()}
        self.server = Postrider(folder / "server", config=SITE, **ports)

    def __enter__(self):
        for sink in self.sinks.values():
            sink.__enter__()
        self.server.__enter__()
        return self

    def __exit__(self, *error):
        try:
            self.server.__exit__(*error)
        finally:
            for sink in self.sinks.values():
                sink.__exit__(*error)

    def got(self, hop, recipient):
        """What a hop got for this recipient; its content without our trace field."""
        found = [one for one in self.sinks[hop].envelopes() if any(f"<{recipient}>" in to for to in one["rcpt"])]
        for one in found:
            trace = TRACE.match(one["content"])  # a notice has none
            assert not trace or trace[0].isascii()  # RFC 6531 section 3.7.3: it may be on its way without SMTPUTF8
            one["content"] = TRACE.sub(b"", one["content"], count=1)
        return found


@pytest.fixture(scope="module")
def hops(tmp_path_factory):
    with Hops(tmp_path_factory.mktemp("hops")) as running:
        yield running


# ---- 8-bit content to a next hop that takes 7 bits -------------------------------------------------------------------

def send_all(port, prefix, contents):
    """One message each, to PREFIXn@seven.test; every other one without a word that it is 8-bit."""
    refused = {}
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test", timeout=120) as client:
        for number, content in enumerate(contents):
            try:
                client.sendmail("back@seven.test", [f"{prefix}{number}@seven.test"], content,
                                ["BODY=8BITMIME"] if number % 2 else [])
            except smtplib.SMTPResponseException as e:
                refused[number] = e
    return refused


def check_suites(hops, prefix, prepare):
    names = suites.messages()
    contents = [prepare(suites.on_the_wire(pathlib.Path(name).read_bytes())) for name in names]
    contents = [content if content.endswith(b"\r\n") else content + b"\r\n" for content in contents]
    refused = send_all(hops.server.port, prefix, contents)
    hops.server.wait_until_empty(120)
    arrived = {}
    for one in hops.sinks["seven"].envelopes():
        if found := re.match(rf"TO:<{prefix}(\d+)@seven.test>", one["rcpt"][0]):
            assert int(found[1]) not in arrived, f"twice: {names[int(found[1])]}"
            assert "BODY=8BITMIME" not in one["mail"] and "SMTPUTF8" not in one["mail"]
            arrived[int(found[1])] = one["content"]
    counts = {"messages": len(names), "refused": len(refused), "converted": 0, "parts": 0, "deviating": 0,
              "impossible": 0}
    notices = b"".join(one["content"] for one in hops.got("seven", "back@seven.test"))
    wrong = [f"{names[number]}: {error}" for number, error in refused.items()]
    for number, (name, sent) in enumerate(zip(names, contents)):
        got = arrived.get(number)
        if got is None and number not in refused:
            counts["impossible"] += 1  # bounced then, as the standards say
            told = rb"Final-Recipient: rfc822; ?%s%d@seven.test\r\n.*?Status: 5.6.3\r\n" % (prefix.encode(), number)
            if not re.search(told, notices, re.S):
                wrong.append(f"{name}: neither arrived nor bounced")
        if got is None:
            continue
        got = TRACE.sub(b"", got, count=1)
        if got == sent and sent.isascii():
            continue
        counts["converted"] += 1
        if not got.isascii():
            wrong.append(f"{name}: 8-bit bytes on the wire")
        before, after = email.message_from_bytes(sent), email.message_from_bytes(got)
        if suites.is_read_otherwise(name, before):
            counts["deviating"] += 1
            continue
        old, new = suites.decoded(before), suites.decoded(after)
        counts["parts"] += len(old)
        if old != new:
            first = next((pair for pair in itertools.zip_longest(old, new) if pair[0] != pair[1]))
            wrong.append(f"{name}: {len(old)} parts, then {len(new)}:\n    {first[0]!r:.300}\n    {first[1]!r:.300}")
        if suites.header_text(before, "Subject") != suites.header_text(after, "Subject"):
            wrong.append(f"{name}: subject")
    summary = ", ".join(f"{count} {what}" for what, count in counts.items())
    print(f"# relayed to a 7-bit hop: {summary}, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
    return counts


@suites.needs_suites
def test_suites_as_they_are(hops):
    counts = check_suites(hops, "plain", lambda data: data)
    assert counts["messages"] > 500 and counts["converted"] > 40 and counts["impossible"] == 0


@suites.needs_suites
def test_suites_with_eight_bit_letters(hops):
    counts = check_suites(hops, "letters", suites.with_eight_bits)
    assert counts["messages"] > 500 and counts["converted"] > 450 and counts["impossible"] < 20


# ---- internationalized mail ------------------------------------------------------------------------------------------

PLAIN = "From: <ok@local.test>\r\nSubject: plain\r\n\r\nplain\r\n"
BODY8 = "From: <ok@local.test>\r\nSubject: plain\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n"
HEADER = "From: Jürgen <ok@local.test>\r\nSubject: Grüße\r\n\r\nplain\r\n"
PART = ("From: <ok@local.test>\r\nSubject: plain\r\nMIME-Version: 1.0\r\n"
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n"
        "Content-Disposition: attachment; filename=\"Grüße.txt\"\r\n\r\nplain\r\n--b--\r\n")

# (why, sender, recipient, content, hop, outcome): outcome "utf8" arrives flagged SMTPUTF8, "ascii" without the flag, an
# address is how the recipient is written then, a status is what the notice says. All are sent with SMTPUTF8.
CASES = [
    ("all ASCII, a hop that knows it", "ok@local.test", "a1@full.test", PLAIN, "full", "ascii"),
    ("all ASCII, a hop without", "ok@local.test", "a2@eight.test", PLAIN, "eight", "ascii"),
    ("all ASCII, a 7-bit hop", "ok@local.test", "a3@seven.test", PLAIN, "seven", "ascii"),
    ("a body in UTF-8 proves no need", "ok@local.test", "b1@full.test", BODY8, "full", "ascii"),
    ("a body in UTF-8, a hop without", "ok@local.test", "b2@eight.test", BODY8, "eight", "ascii"),
    ("a body in UTF-8, a 7-bit hop", "ok@local.test", "b3@seven.test", BODY8, "seven", "ascii"),
    ("a header", "ok@local.test", "c1@full.test", HEADER, "full", "utf8"),
    ("a header, a hop without", "ok@local.test", "c2@eight.test", HEADER, "eight", "5.6.9"),
    ("a header, a 7-bit hop", "ok@local.test", "c3@seven.test", HEADER, "seven", "5.6.9"),
    ("a header of a part", "ok@local.test", "d1@full.test", PART, "full", "utf8"),
    ("a header of a part, a hop without", "ok@local.test", "d2@eight.test", PART, "eight", "5.6.9"),
    ("a local part", "ok@local.test", "größe1@full.test", PLAIN, "full", "utf8"),
    ("a local part, a hop without", "ok@local.test", "größe2@eight.test", PLAIN, "eight", "5.6.7"),
    ("a local part, a 7-bit hop", "ok@local.test", "größe3@seven.test", PLAIN, "seven", "5.6.7"),
    ("a domain in U-labels, a hop without", "ok@local.test", "e1@bücher.test", PLAIN, "seven", "e1@xn--bcher-kva.test"),
    ("a domain in A-labels", "ok@local.test", "e2@xn--bcher-kva.test", PLAIN, "seven", "e2@xn--bcher-kva.test"),
    ("both, a hop without", "ok@local.test", "größe4@bücher.test", PLAIN, "seven", "5.6.7"),
    ("a sender", "jürgen@local.test", "f1@full.test", PLAIN, "full", "utf8"),
    ("a sender, a hop without", "jürgen@local.test", "f2@eight.test", PLAIN, "eight", "5.6.7"),
    ("a sender in U-labels, a hop without", "g1@bücher.test", "g1@eight.test", PLAIN, "eight", "ascii"),
]


def send_utf8(server, sender, to, content, options=("SMTPUTF8", "BODY=8BITMIME")):
    with smtplib.SMTP("127.0.0.1", server.port, local_hostname="client.test", timeout=60) as client:
        client.ehlo()
        client.command_encoding = "utf-8"
        return client.sendmail(sender, [to], content.encode(), list(options))


def notice_about(server, sender, to):
    """The notice on a recipient, or None: from the mailbox of its sender."""
    for mail in server.mails(sender.split("@")[0]):
        if b"report-type=" in mail and to.encode() in mail:
            return mail
    return None


@pytest.mark.parametrize("why,sender,to,content,hop,outcome", CASES, ids=[case[0] for case in CASES])
def test_internationalized(hops, why, sender, to, content, hop, outcome):
    send_utf8(hops.server, sender, to, content)
    if re.fullmatch(r"5\.\d\.\d", outcome):
        mail = wait_until(lambda: notice_about(hops.server, sender, to), 60, "a notice")
        check_notice(mail, sender, to, content, outcome)
        assert not hops.got(hop, to)
        return
    (got,) = wait_until(lambda: hops.got(hop, outcome if "@" in outcome else to), 60, "the message")
    assert ("SMTPUTF8" in got["mail"].split()) == (outcome == "utf8"), got["mail"]
    assert (got["mail"] + "".join(got["rcpt"])).isascii() == (sender + to).isascii() or outcome != "utf8"
    if hop == "seven":
        assert got["content"].isascii() and "BODY=8BITMIME" not in got["mail"]
        before, after = (email.message_from_bytes(data) for data in (content.encode(), got["content"]))
        assert suites.decoded(before) == suites.decoded(after)
    else:
        assert got["content"] == content.encode()


def check_notice(mail, sender, to, content, status):
    notice = email.message_from_bytes(mail)
    assert notice.get_content_type() == "multipart/report"
    _, report, original = notice.get_payload()
    utf8 = not to.isascii()
    assert report.get_content_type() == f"message/{'global-' if utf8 else ''}delivery-status"
    assert original.get_content_type() in ("message/global", "message/global-headers")
    fields = report.as_bytes().decode() if not utf8 else mail.decode()
    assert re.search(rf"^Final-Recipient: {'utf-8' if utf8 else 'rfc822'}; ?{re.escape(to)}$", fields, re.M), fields
    assert re.search(rf"^Status: {re.escape(status)}$", fields, re.M) and re.search("^Action: failed$", fields, re.M)
    assert mail.startswith(b"Return-Path: <>\nDelivered-To: " + sender.encode() + b"\n")
    assert content.replace("\r\n", "\n").encode().split(b"\n\n")[0] in mail


@pytest.mark.parametrize("hop", ["eight", "seven"])
def test_the_notice_goes_where_the_message_could_not(hops, hop):
    """Back to a sender whose own host takes no SMTPUTF8: message/global may be encoded (RFC 6532 section 3.7)."""
    send_utf8(hops.server, f"back-{hop}@{hop}.test", f"größe5@{hop}.test", HEADER)
    (got,) = wait_until(lambda: hops.got(hop, f"back-{hop}@{hop}.test"), 60, "the notice")
    assert "SMTPUTF8" not in got["mail"] and (hop == "eight" or got["content"].isascii())
    notice = email.message_from_bytes(got["content"])
    report, original = notice.get_payload()[1:]
    assert report.get_content_type() == "message/global-delivery-status"
    assert original.get_content_type() == "message/global"
    report, original = (decoded_leaf(part) for part in (report, original))
    assert f"Final-Recipient: utf-8; größe5@{hop}.test\r\nAction: failed\r\nStatus: 5.6.9\r\n".encode() in report
    assert b"\r\nDiagnostic-Code: X-Postrider; the next hop takes no" in report
    assert original.endswith(HEADER.encode())


def decoded_leaf(part):
    """Python takes message/global for a container, whatever its encoding."""
    text = part.as_bytes().partition(b"\n\n")[2]
    if part["Content-Transfer-Encoding"] == "base64":
        return base64.b64decode(text)
    return re.sub(rb"\r?\n", b"\r\n", text)


def test_delivered_here(hops):
    """A mailbox beyond ASCII; the trace field says UTF8SMTP (RFC 6531 section 4.3); the bytes are as they came."""
    send_utf8(hops.server, "größe@client.test", "jürgen@local.test", HEADER)
    mail = wait_until(lambda: [m for m in hops.server.mails("jürgen") if "größe@client.test".encode() in m])[0]
    assert without_trace(mail).decode() == HEADER.replace("\r\n", "\n")
    assert "with UTF8SMTP id" in re.sub(r"\s+", " ", mail.decode())
    assert mail.decode().startswith("Return-Path: <größe@client.test>\nDelivered-To: jürgen@local.test\n")


@pytest.mark.parametrize("sender,to", [("ok@local.test", "jürgen@local.test"), ("jürgen@local.test", "ok@local.test")],
                         ids=["recipient", "sender"])
def test_without_the_parameter(hops, sender, to):
    with smtplib.SMTP("127.0.0.1", hops.server.port, local_hostname="client.test", timeout=60) as client:
        client.ehlo()
        client.command_encoding = "utf-8"
        got, words = client.mail(sender)
        if got == 250:
            got, words = client.rcpt(to)
        assert got == 553 and words.startswith(b"5.6.7 "), words


def test_original_recipients_beyond_ascii(hops):
    """ORCPT of type utf-8 (RFC 6533 section 3) is passed on, and as ASCII where the hop takes only that."""
    with smtplib.SMTP("127.0.0.1", hops.server.port, local_hostname="client.test", timeout=60) as client:
        client.ehlo()
        client.command_encoding = "utf-8"
        for to in ("orcpt@full.test", "orcpt@eight.test"):
            client.mail("ok@local.test", ["SMTPUTF8"])
            assert client.rcpt(to, ["ORCPT=utf-8;gr\\x{F6}\\x{DF}e@bücher.test", "NOTIFY=FAILURE"])[0] == 250
            assert client.data(PLAIN.encode())[0] == 250
    for hop in ("full", "eight"):
        (got,) = wait_until(lambda hop=hop: hops.got(hop, f"orcpt@{hop}.test"), 60, "the message")
        (to,) = got["rcpt"]
        assert "ORCPT=utf-8;gr" in to and "NOTIFY=FAILURE" in to
        assert to.isascii() or "SMTPUTF8" in got["mail"]
