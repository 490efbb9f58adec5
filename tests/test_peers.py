"""Other people's MTAs on both sides of us: everything that is sent arrives, once, byte for byte."""
import collections
import contextlib
import hashlib
import os
import random
import smtplib

import pytest

from harness import Postrider, wait_until
from peers import Dovecot, Exim, OpenSMTPD, Postfix, Sink

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="the other MTAs want to be started as root")
MESSAGES = 1000 if os.environ.get("POSTRIDER_FULL") else 60
MANY = 20 if os.environ.get("POSTRIDER_FULL") else 3
USERS = [f"u{i}" for i in range(60)]

FIRST = """
hostname first.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1; max-recipients 3000 }}
route default {{ via {scheme}://127.0.0.1:{next_port}; tls off }}
retry 1s 2s 5s for 1h
"""
LAST = """
hostname last.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1; max-recipients 3000; connections 1000 per-client }}
domain last.test {{ mailbox """ + " ".join(USERS) + """; alias postmaster -> u0; deliver maildir {mail}/{{domain}}/{{local}} }}
"""


def body_of(mail):
    """Without header fields, which everybody on the way adds to."""
    return mail.replace(b"\r\n", b"\n").split(b"\n\n", 1)[1]


def digest(body):
    return hashlib.sha256(body.replace(b"\r\n", b"\n")).hexdigest()


def hand_over(port, messages, seed):
    """Counter of (recipient, digest) that must arrive."""
    dice = random.Random(seed)
    expected = collections.Counter()
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        for i in range(messages):
            recipients = dice.sample(USERS, 1 + i % 60)
            body = f"{i} ".encode() + b"".join(b"line %d\r\n.dot\r\n" % dice.randrange(10**9) for _ in range(dice.randrange(1, 60)))
            assert client.sendmail("a@client.test", [f"{user}@last.test" for user in recipients],
                                   f"Subject: {i}\r\nFrom: a@client.test\r\nTo: list@last.test\r\n".encode() + b"\r\n" + body) == {}
            for user in recipients:
                expected[user, digest(body)] += 1
    return expected


def arrived(folder):
    """The same of what lies in Maildirs below the folder."""
    return collections.Counter((path.parts[-3], digest(body_of(path.read_bytes()))) for path in folder.glob("*/new/*"))


def wait_for_all(folder, expected):
    wait_until(lambda: sum(1 for _ in folder.glob("*/new/*")) >= expected.total(), 240 if MESSAGES < 1000 else 1800,
               f"{expected.total()} copies in {folder}")


@pytest.mark.parametrize("peer", [Postfix, Exim, OpenSMTPD], ids=lambda peer: peer.__name__)
def test_mail_goes_through_a_peer_and_back(tmp_path, peer):
    """A client, us, the peer, us again, Maildirs: the peer is our next hop, and our client."""
    with contextlib.ExitStack() as stack:
        last = stack.enter_context(Postrider(tmp_path / "last", config=LAST))
        middle = stack.enter_context(peer(last.port))
        first = stack.enter_context(Postrider(tmp_path / "first", config=FIRST, next_port=middle.port, scheme="smtp"))
        expected = hand_over(first.port, MESSAGES, 1)
        wait_for_all(last.mail / "last.test", expected)
        first.wait_until_empty()
        last.wait_until_empty()
        assert arrived(last.mail / "last.test") == expected
        print(f"{MESSAGES} messages through {peer.__name__} and back: {expected.total()} copies, none lost, none twice")
        assert first.figures()["balanced"] == last.figures()["balanced"] == 1


def test_mail_goes_into_dovecot(tmp_path):
    with Dovecot() as dovecot:
        with Postrider(tmp_path / "first", config=FIRST, next_port=dovecot.port, scheme="lmtp") as first:
            expected = hand_over(first.port, MESSAGES, 2)
            wait_for_all(dovecot.folder / "mail", expected)
            first.wait_until_empty()
            assert arrived(dovecot.folder / "mail") == expected
            print(f"{MESSAGES} messages into Dovecot: {expected.total()} copies, none lost, none twice")


@pytest.mark.parametrize("options", [["--rcpt-max", "100", "--limits"], ["--rcpt-max", "100"], ["--rcpt-max", "40"]],
                         ids=["RCPTMAX 100", "452 at 100", "452 at 40"])
def test_2500_recipients(tmp_path, options):
    with Sink(tmp_path / "sink", *options) as sink:
        with Postrider(tmp_path / "first", config=FIRST, next_port=sink.port, scheme="smtp") as first:
            bodies = [b"message %d\r\n" % i for i in range(MANY)]
            recipients = [f"r{i}@far.test" for i in range(2500)]
            for body in bodies:
                assert first.send(to=recipients, content=b"Subject: to many\r\n\r\n" + body) == {}
            first.wait_until_empty(120)
            got = collections.Counter()
            for envelope in sink.envelopes():
                assert len(envelope["rcpt"]) <= 100
                for rcpt in envelope["rcpt"]:
                    got[rcpt.split("<")[1].split(">")[0], digest(body_of(envelope["content"]))] += 1
            assert got == collections.Counter({(r, digest(body)): 1 for r in recipients for body in bodies})
            print(f"{MANY} messages to 2500 each, {options}: {got.total()} recipients in {len(sink.envelopes())} transactions")
