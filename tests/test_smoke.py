"""The whole way, small: accepted, synced, delivered; refused; stopped in good order."""
import json
import os
import smtplib
import subprocess

import pytest

from harness import LOCAL_SITE, Postrider, without_trace


def test_a_message_reaches_the_maildir(tmp_path):
    content = b"Subject: hello\r\nFrom: a@client.test\r\n\r\n.dot\r\n..two\r\n\xe4\r\nlast\r\n"
    with Postrider(tmp_path) as server:
        assert server.send(content=content) == {}
        (mail,) = server.wait_for_mail()
        assert without_trace(mail) == content.replace(b"\r\n", b"\n")
        assert mail.startswith(b"Return-Path: <a@client.test>\nDelivered-To: ok@local.test\nReceived: from ")
        server.wait_until_empty()
        figures = server.figures()
        assert figures["accepted"] == figures["delivered"] == 1
        assert figures["balanced"] == 1
        assert server.stop() == 0


def test_a_relative_configuration_with_a_relative_state(tmp_path):
    """As the manual's example starts it: what is relative to the file is so for every role."""
    config = "\n".join(line for line in LOCAL_SITE.splitlines() if not line.startswith("state")) + "\nstate state\n"
    server = Postrider(tmp_path, config, command=["env", "-C", str(tmp_path)])
    server.config_path = "./postrider.conf"
    with server:
        subprocess.run([str(server.binary), "sendmail", "ok@local.test"], input=b"Subject: local\n\nlocal\n", cwd=tmp_path,
                       env=dict(os.environ, POSTRIDER_CONFIG="postrider.conf"), check=True, timeout=120)
        server.wait_for_mail()
        shown = server.cli("status", "--json", "--config", "./postrider.conf", cwd=tmp_path)
        assert all(role["restarts"] == 0 for role in json.loads(shown.stdout)["roles"])
        assert server.cli("reload", "--config", "postrider.conf", cwd=tmp_path).returncode == 0


def test_unknown_mailboxes_are_refused(tmp_path):
    with Postrider(tmp_path) as server:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            server.send(to="nobody@local.test")
        assert refused.value.recipients["nobody@local.test"][0] == 550


def test_mail_is_relayed_to_the_next_hop_and_the_queue_drains(tmp_path):
    with Postrider(tmp_path / "b") as second:
        with Postrider(tmp_path / "a", next_port=second.port, config="""
hostname out.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1 }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
""") as first:
            first.send(content=b"Subject: relayed\r\n\r\nhello\r\n")
            (mail,) = second.wait_for_mail()
            assert mail.count(b"Received: ") == 2
            first.wait_until_empty()
            assert first.figures()["delivered"] == 1


def test_mail_waits_for_a_next_hop_that_is_down(tmp_path):
    with Postrider(tmp_path) as server:
        server.send(to="someone@elsewhere.test")
        (waiting,) = server.queue()
        assert waiting["to"] == "someone@elsewhere.test"
        shown = server.queue_show(waiting["id"])
        assert shown["from"] == "a@client.test"


def test_mail_for_another_postrider_goes_encrypted(tmp_path):
    config = """
hostname out.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1 }}
route default {{ via 127.0.0.1:{next_port}; tls require }}
"""
    with Postrider(tmp_path / "b") as second, Postrider(tmp_path / "a", next_port=second.port, config=config) as first:
        first.send(to="ok@local.test")
        (mail,) = second.wait_for_mail()
        assert b" with ESMTPS\n" in mail
