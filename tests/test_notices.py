"""The notice matrix: who is told what, by NOTIFY, by where the mail goes and by what becomes of it. RFC 3461, RFC 3464."""
import email
import email.policy
import itertools
import smtplib

import pytest

from harness import Postrider, wait_until
from peers import Sink

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1 }}
domain local.test {{
    mailbox sender ok other
    subaddress +
    alias postmaster -> ok
    alias one -> ok
    alias one-550 -> 550-one@dsn.test
    alias one-450 -> 450-one@dsn.test
    alias several -> ok other
    alias several-550 -> ok 550-several@dsn.test
    alias several-450 -> ok 450-several@dsn.test
    deliver maildir {mail}/{{domain}}/{{local}}
}}
domain full.test {{ mailbox 450-box; deliver maildir {mail}/{{domain}}/{{local}} quota 1 }}
route dsn.test   {{ via smtp://127.0.0.1:{dsn_port}; tls off }}
route nodsn.test {{ via smtp://127.0.0.1:{nodsn_port}; tls off }}
route lmtp.test  {{ via lmtp://127.0.0.1:{lmtp_port}; tls off }}
route default    {{ via smtp://127.0.0.1:1; tls off }}
retry 1h for 1d {{ delay-notice {delay} }}
"""

NOTIFY = {
    "none": None,
    "NEVER": "NEVER",
    "S": "SUCCESS",
    "F": "FAILURE",
    "D": "DELAY",
    "S+F+D": "SUCCESS,FAILURE,DELAY",
}
ADDRESSES = {  # hop -> address that is taken, refused, put off
    "dsn": ("ok@dsn.test", "550-x@dsn.test", "450-x@dsn.test"),
    "nodsn": ("ok@nodsn.test", "550-x@nodsn.test", "450-x@nodsn.test"),
    "lmtp": ("ok@lmtp.test", "550-x@lmtp.test", "450-x@lmtp.test"),
    "maildir": ("ok@local.test", "ok@local.test", "450-box@full.test"),
    "alias to one": ("one@local.test", "one-550@local.test", "one-450@local.test"),
    "alias to several": ("several@local.test", "several-550@local.test", "several-450@local.test"),
}
# What success is called, and its status; None: whoever it was passed on to tells.
SUCCESS = {
    "dsn": None,
    "nodsn": ("relayed", "2."),
    "lmtp": ("delivered", "2."),
    "maildir": ("delivered", "2."),
    "alias to one": ("delivered", "2."),
    "alias to several": ("expanded", "2."),
}
FATES = ("success", "failure", "delay")


def final_recipient(hop, fate):
    address = ADDRESSES[hop][FATES.index(fate)]
    if hop == "alias to one":
        return {"success": "ok@local.test", "failure": "550-one@dsn.test", "delay": "450-one@dsn.test"}[fate]
    if hop == "alias to several" and fate != "success":
        return {"failure": "550-several@dsn.test", "delay": "450-several@dsn.test"}[fate]
    return address


def expectations(hop, notify, fate):
    """{action: status prefix} of the notices that are due."""
    told = NOTIFY[notify].split(",") if NOTIFY[notify] else ["FAILURE", "DELAY"]  # DELAY: the client is one of our own
    due = {}
    if "SUCCESS" in told and (fate == "success" or hop == "alias to several") and SUCCESS[hop]:
        action, status = SUCCESS[hop]
        due[action] = status
    if fate == "failure" and "FAILURE" in told:
        due["failed"] = "5."
    if fate == "delay" and "DELAY" in told:
        due["delayed"] = "4."
    return due


def parse_notice(mail):
    notice = email.message_from_bytes(mail, policy=email.policy.SMTP)
    assert notice["Return-Path"] == "<>"
    assert notice["Auto-Submitted"] == "auto-replied"
    assert notice.get_content_type() == "multipart/report"
    assert notice.get_param("report-type") == "delivery-status"
    words, status, original = notice.get_payload()
    assert words.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    per_message, *per_recipient = status.get_payload()
    assert not notice.defects and not any(part.defects for part in notice.walk())
    return words.get_content(), per_message, per_recipient, original


CASES = list(itertools.product(ADDRESSES, NOTIFY, FATES))


def envid(case):
    return f"case-{CASES.index(case)}"


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """Every case sent to one daemon; what came back, by envelope id."""
    folder = tmp_path_factory.mktemp("notices")
    with Sink(folder / "dsn", "--obey") as dsn, Sink(folder / "nodsn", "--obey", "--without", "DSN") as nodsn, \
            Sink(folder / "lmtp", "--obey", "--lmtp", "--without", "DSN") as lmtp, \
            Postrider(folder / "server", config=SITE, dsn_port=dsn.port, nodsn_port=nodsn.port, lmtp_port=lmtp.port,
                      delay="10s") as server:
        with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
            client.ehlo()
            for case in CASES:
                hop, notify, fate = case
                to = ADDRESSES[hop][FATES.index(fate)]
                content = f"Subject: {hop}, {notify}, {fate}\r\nFrom: sender@local.test\r\n".encode()
                if (hop, fate) == ("maildir", "failure"):
                    content += b"Delivered-To: ok@local.test\r\n"  # it has been there: a loop
                options = ["NOTIFY=" + NOTIFY[notify]] if NOTIFY[notify] else []
                client.sendmail("sender@local.test", [to], content + b"\r\nThe text.\r\n",
                                [f"ENVID={envid(case)}", "RET=HDRS"],
                                [*options, "ORCPT=rfc822;first+2B" + to])
        expected = sum(len(expectations(*case)) for case in CASES)
        wait_until(lambda: len(server.mails("sender")) >= expected, 60, f"{expected} notices")
        # What is put off last was sent after all that no notice is due for, so their time has come and gone too.
        with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
            client.sendmail("sender@local.test", ["450-last@dsn.test"], b"Subject: last\r\n\r\n", ["ENVID=last"],
                            ["NOTIFY=DELAY"])
        wait_until(lambda: len(server.mails("sender")) >= expected + 1, 60, "the last notice")
        # A notice is there before the store has settled it.
        waiting = wait_until(lambda: (queue := server.queue()) and all(message["from"] for message in queue) and queue)
        for message in waiting:
            server.cli("queue", "rm", message["id"], "--config", str(server.config_path))
        server.wait_until_empty()
        notices = {}
        for mail in server.mails("sender"):
            parsed = parse_notice(mail)
            notices.setdefault(parsed[1]["Original-Envelope-Id"], []).append(parsed)
        assert server.figures()["balanced"] == 1
        yield {"notices": notices, "waiting": waiting, "passed on": dsn.envelopes(), "taken": nodsn.envelopes()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case).replace(" ", "-"))
def test_the_notice_is_as_asked(matrix, case):
    hop, _, fate = case
    due = expectations(*case)
    to = ADDRESSES[hop][FATES.index(fate)]
    got = {}
    for words, per_message, per_recipient, original in matrix["notices"].get(envid(case), []):
        (block,) = per_recipient
        action = block["Action"]
        assert action not in got
        got[action] = block["Status"]
        assert per_message["Reporting-MTA"] == "dns; mx.local.test"
        assert per_message["Arrival-Date"]
        assert block["Original-Recipient"] == "rfc822; first+" + to
        final = to if action == "expanded" else final_recipient(hop, fate)
        assert block["Final-Recipient"] == "rfc822; " + final
        assert final in words
        assert original.get_content_type() == "text/rfc822-headers"
        assert b"The text." not in original.as_bytes()
        assert ", ".join(case) in original.get_payload()
        if action == "failed" and hop != "maildir":
            assert block["Diagnostic-Code"].startswith("smtp; 550 5.0.0")
            assert block["Remote-MTA"].startswith("dns; ")
        if action == "delayed":
            assert block["Will-Retry-Until"]
    assert set(got) == set(due), got
    for action, status in due.items():
        assert got[action].startswith(status)


def test_put_off_mail_is_what_waited(matrix):
    assert len(matrix["waiting"]) == len([c for c in CASES if c[2] == "delay"]) + 1


def test_a_next_hop_with_dsn_gets_what_was_asked(matrix):
    envelopes = [e for e in matrix["passed on"] if "ENVID=case-" in e["mail"]]
    seen = {}
    for envelope in envelopes:
        for rcpt in envelope["rcpt"]:
            seen[envelope["mail"].split("ENVID=")[1].split()[0]] = (envelope["mail"], rcpt)
    for notify, asked in NOTIFY.items():
        mail, rcpt = seen[envid(("dsn", notify, "success"))]
        assert "RET=HDRS" in mail
        assert "ORCPT=rfc822;first+2Bok@dsn.test" in rcpt
        given = [word for word in rcpt.split() if word.startswith("NOTIFY=")]
        assert given == (["NOTIFY=" + asked] if asked else [])


def test_a_next_hop_without_dsn_gets_none_of_it(matrix):
    for envelope in matrix["taken"]:
        assert "ENVID" not in envelope["mail"] and "RET" not in envelope["mail"]
        assert not any("NOTIFY" in rcpt or "ORCPT" in rcpt for rcpt in envelope["rcpt"])


@pytest.fixture
def server(tmp_path):
    with Sink(tmp_path / "sink", "--obey") as sink:
        with Postrider(tmp_path / "server", config=SITE, dsn_port=sink.port, nodsn_port=sink.port, lmtp_port=1,
                       delay="off") as daemon:
            yield daemon


def test_the_whole_message_comes_back_if_wanted(server):
    content = b"Subject: whole\r\n\r\nThe text.\r\n"
    for ret in ([], ["RET=FULL"]):
        server.send("sender@local.test", "550-x@dsn.test", content, ret)
    for mail in server.wait_for_mail("sender", 2):
        original = parse_notice(mail)[3]
        assert original.get_content_type() == "message/rfc822"
        (inner,) = original.get_payload()
        assert inner["Subject"] == "whole"
        assert inner.get_payload() == "The text.\n"


def test_recipients_that_fail_together_share_a_notice(server):
    recipients = [f"550-{i}@dsn.test" for i in range(150)]
    server.send("sender@local.test", [*recipients, "fine@dsn.test"])
    server.wait_until_empty()
    (mail,) = server.mails("sender")
    blocks = parse_notice(mail)[2]
    assert sorted(block["Final-Recipient"] for block in blocks) == sorted("rfc822; " + r for r in recipients)


def test_the_null_sender_is_never_told(server):
    server.send("", ["550-x@dsn.test", "ok@local.test"], rcpt_options=["NOTIFY=SUCCESS,FAILURE,DELAY"])
    server.wait_until_empty()
    assert server.mails("sender") == []
    assert len(server.mails("ok")) == 1  # the message itself, and no double bounce


def test_a_notice_that_fails_goes_to_postmaster_once(server):
    server.send("550-sender@dsn.test", "550-x@dsn.test", b"Subject: nobody home\r\n\r\n")
    (mail,) = server.wait_for_mail("ok")
    server.wait_until_empty()
    _, _, (block,), original = parse_notice(mail)
    assert block["Final-Recipient"] == "rfc822; 550-sender@dsn.test"
    assert block["Action"] == "failed"
    assert "Undelivered mail" in original.get_payload(0)["Subject"]
    assert len(server.mails("ok")) == 1


def test_a_stranger_is_not_told_of_delays_unless_he_asks(tmp_path):
    site = SITE.replace("; relay from 127.0.0.1", "").replace("mailbox 450-box", "mailbox 450-box 450-other")
    with Sink(tmp_path / "sink", "--obey") as sink:
        with Postrider(tmp_path / "server", config=site, dsn_port=sink.port, nodsn_port=1, lmtp_port=1,
                       delay="1s") as server:
            server.send("sender@local.test", "450-box@full.test")
            server.send("sender@local.test", "450-other@full.test", rcpt_options=["NOTIFY=DELAY"])
            (mail,) = server.wait_for_mail("sender")
            assert parse_notice(mail)[2][0]["Final-Recipient"] == "rfc822; 450-other@full.test"
            server.send("sender@local.test", "450-other@full.test", rcpt_options=["NOTIFY=DELAY"])
            assert len(server.wait_for_mail("sender", 2)) == 2
