"""What an operator does to a running server: queue verbs, status, reload, stop, mailq; their exit codes and their JSON."""
import json
import os
import pathlib
import smtplib
import subprocess

import pytest

from harness import Postrider, binary, free_port, wait_until

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1 }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
retry 1h for 5d
"""
UNKNOWN = "0" * 26


@pytest.fixture(scope="module")
def down(tmp_path_factory):
    """A server whose next hop is down, so that its queue keeps what it is given."""
    with Postrider(tmp_path_factory.mktemp("down"), SITE, next_port=free_port()) as server:
        yield server


def run(server, *words, check=True):
    return server.cli(*words, "--config", str(server.config_path), check=check)


def queued(server, to="someone@elsewhere.test", sender="a@client.test"):
    """Sends one, and returns its queue id once its first attempt has failed."""
    before = {message["id"] for message in server.queue()}
    server.send(to=to, sender=sender)
    (new,) = wait_until(lambda: {m["id"] for m in server.queue()} - before, what="it in the queue")
    wait_until(lambda: server.queue_show(new)["recipients"][0]["attempts"] >= 1
               or server.queue_show(new)["recipients"][0].get("reason"), what="its first attempt")
    return new


def remove(server, *ids):
    run(server, "queue", "rm", *ids)
    wait_until(lambda: not {m["id"] for m in server.queue()} & set(ids), what="its end")


def test_list_and_show_say_what_is_known(down):
    new = queued(down)
    (line,) = [m for m in down.queue() if m["id"] == new]
    assert line["from"] == "a@client.test"
    assert line["to"] == "someone@elsewhere.test"
    assert line["pending"] == 1
    assert line["held"] is False
    assert line["version"] == 1
    assert line["size"] == len(b"Subject: hello\r\n\r\nhello\r\n")
    assert line["accepted"].endswith("Z")
    shown = down.queue_show(new)
    assert shown["version"] == 1
    assert shown["client"] == "127.0.0.1"
    assert shown["recipient-count"] == 1
    (recipient,) = shown["recipients"]
    assert recipient["to"] == "someone@elsewhere.test"
    text = run(down, "queue", "show", new).stdout
    assert "someone@elsewhere.test" in text
    assert "a@client.test" in text
    text = run(down, "queue").stdout
    assert new in text
    assert "messages" in text
    remove(down, new)


def test_hold_release_and_retry(down):
    new = queued(down)
    run(down, "queue", "hold", new)
    assert down.queue_show(new)["held"] is True
    assert down.queue_show(new)["held-why"] == "by an operator"
    attempts = down.queue_show(new)["recipients"][0]["attempts"]
    run(down, "queue", "retry", new)  # a held one stays held
    assert [m["held"] for m in down.queue() if m["id"] == new] == [True]
    assert down.figures()["held"] == 1
    run(down, "queue", "release", new)
    assert down.queue_show(new)["held"] is False
    assert down.figures()["held"] == 0
    run(down, "queue", "retry", new)
    wait_until(lambda: down.queue_show(new)["recipients"][0]["attempts"] >= attempts, what="another attempt")
    run(down, "queue", "retry", "--all")
    remove(down, new)


def test_hold_lasts_over_a_restart(tmp_path):
    with Postrider(tmp_path, SITE, next_port=free_port()) as server:
        new = queued(server)
        run(server, "queue", "hold", new)
        assert server.stop() == 0
        server.start()
        wait_until(lambda: [m["id"] for m in server.queue() if m["held"]] == [new], what="the held message")
        run(server, "queue", "bounce", new)  # a held one can be ended
        wait_until(lambda: [m["from"] for m in server.queue()] == [""], what="the notice")


def test_bounce_tells_the_sender_and_rm_does_not(down):
    new = queued(down, sender="ok@local.test")
    run(down, "queue", "bounce", new)
    (mail,) = down.wait_for_mail()
    assert b"Content-Type: multipart/report" in mail
    assert b"Final-Recipient: rfc822; someone@elsewhere.test" in mail
    assert b"Action: failed" in mail
    assert new not in [m["id"] for m in down.queue()]
    removed = down.figures()["removed"]
    other = queued(down, sender="ok@local.test")
    remove(down, other)
    assert down.figures()["removed"] == removed + 1
    assert len(down.mails()) == 1
    assert down.figures()["balanced"] == 1


def test_the_queue_of_a_next_hop_that_comes_up_again_drains_on_retry(tmp_path):
    port = free_port()
    with Postrider(tmp_path / "a", SITE, next_port=port) as first:
        new = queued(first, to="ok@local.test".replace("local", "other"))
        with Postrider(tmp_path / "b", SITE.replace("domain local.test", "domain other.test"), port=port) as second:
            run(first, "queue", "retry", new)
            second.wait_for_mail(domain="other.test")
            first.wait_until_empty()


@pytest.mark.parametrize("words", [["queue", "rm", "not-an-id"], ["status", "now"], ["spool", "verify"]], ids=" ".join)
def test_a_long_command_line_is_no_bug(down, words):
    result = run(down, *words, *[UNKNOWN] * 33000, check=False) if words[0] != "spool" else \
        down.cli(*words, *[UNKNOWN] * 33000, check=False)
    assert result.returncode == 64, result.stderr[-1000:]


@pytest.mark.parametrize(("words", "code", "says"), [
    (["queue", "show", UNKNOWN], 1, "no such message"),
    (["queue", "hold", UNKNOWN], 1, "no such message"),
    (["queue", "release", UNKNOWN], 1, "no such message"),
    (["queue", "retry", UNKNOWN], 1, "no such message"),
    (["queue", "bounce", UNKNOWN], 1, "no such message"),
    (["queue", "rm", UNKNOWN], 1, "no such message"),
    (["queue", "show", "not-an-id"], 64, "no queue id"),
    (["queue", "show"], 64, "wants queue ids"),
    (["queue", "frobnicate"], 64, "none of list, show"),
    (["queue", "list", "--frobnicate"], 64, "frobnicate"),
    (["status", "--frobnicate"], 64, "frobnicate"),
    (["reload", "--frobnicate"], 64, "frobnicate"),
    (["stop", "--frobnicate"], 64, "frobnicate"),
    (["queue", "rm", "--all"], 64, "--all goes with retry only"),
    (["queue", "list", "--all"], 64, "--all goes with retry only"),
    (["queue", "retry", "--all", UNKNOWN], 64, "either --all or queue ids"),
    (["queue", "list", UNKNOWN], 64, "is not expected here"),
    (["mailq", "--all"], 64, "no such option"),
    (["status", "now"], 64, "\"now\" is not expected here"),
    (["stop", "now"], 64, "\"now\" is not expected here"),
    (["status", "--jsn"], 64, "did you mean \"--json\"?"),
    (["frobnicate"], 64, "frobnicate"),
    (["statsu"], 64, "did you mean \"status\"?"),
])
def test_refusals_say_why_and_with_which_code(down, words, code, says):
    if words[0] in ("frobnicate", "statsu"):
        result = down.cli(*words, check=False)
    else:
        result = run(down, *words, check=False)
    assert result.returncode == code, result
    assert says in result.stderr
    assert result.stdout == ""


def test_one_bad_id_among_good_ones(down):
    new = queued(down)
    assert run(down, "queue", "hold", UNKNOWN, new, check=False).returncode == 1
    assert down.queue_show(new)["held"] is True
    remove(down, new)


@pytest.mark.parametrize("verb", [["status"], ["reload"], ["stop"], ["queue", "list"], ["mailq"]])
def test_without_a_server_every_verb_says_so(tmp_path, verb):
    config = tmp_path / "postrider.conf"
    config.write_text(f"hostname mx.local.test\nstate {tmp_path}\nlisten mx {{ address 127.0.0.1:{free_port()} }}\n")
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")
    result = subprocess.run([str(binary()), *verb, "--config", str(config)], capture_output=True, text=True,
                            timeout=60, env=env)
    assert result.returncode == 69, result
    assert "no server answers" in result.stderr
    result = subprocess.run([str(binary()), *verb, "--config", str(tmp_path / "absent")], capture_output=True, text=True,
                            timeout=60, env=env)
    assert result.returncode == 78, result


def test_a_broken_file_hides_no_server(tmp_path):
    """What an operator needs when the file was just spoilt: the server that runs, and what is wrong."""
    with Postrider(tmp_path, SITE) as server:
        server.config_path.write_text(f"lisen mx {{ }}\nstate {server.state}\nretry {{\n", encoding="utf-8")
        assert server.status()["roles"]
        assert run(server, "queue", "list").stdout == "The queue is empty.\n"
        refused = run(server, "reload", check=False)
        assert refused.returncode == 78
        assert "nothing was changed" in refused.stderr and "postrider.conf:1:1: \"lisen\"" in refused.stderr
        run(server, "stop")
        assert server.process.wait(30) == 0
        server.process = None


def test_a_second_server_leaves_the_first_one_alone(tmp_path):
    with Postrider(tmp_path, SITE) as server:
        second = server.cli("run", "--config", str(server.config_path), check=False)
        assert second.returncode == 71, second
        assert "another server listens" in second.stderr
        assert server.status()["roles"]
        server.send()
        server.wait_for_mail()


def test_status_shows_roles_and_figures(down):
    status = down.status()
    assert status["version"] == 1
    kinds = {role["role"] for role in status["roles"]}
    assert kinds == {"receiver", "submission", "gate", "store", "sender", "mailbox", "resolver", "checker", "console", "keys",
                     "fetch"}
    for role in status["roles"]:
        assert role["state"] == "running"
        assert pathlib.Path(f"/proc/{role['pid']}").is_dir()
        assert "seccomp" in role["sandbox"], role
        assert "no new privileges" in role["sandbox"], role
    text = run(down, "status").stdout
    for kind in kinds:
        assert kind in text
    assert "messages" in text


def test_limit_and_pages(tmp_path):
    with Postrider(tmp_path, SITE, next_port=free_port()) as server:
        with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
            for n in range(250):
                client.sendmail("a@client.test", [f"u{n}@elsewhere.test"], b"Subject: x\r\n\r\nx\r\n")
        assert len(run(server, "queue", "list", "--json").stdout.splitlines()) == 100
        assert len(run(server, "queue", "list", "--json", "--limit", "7").stdout.splitlines()) == 7
        assert len(run(server, "queue", "list", "--json", "--limit", "201").stdout.splitlines()) == 201
        all_of_them = [json.loads(line) for line in run(server, "queue", "list", "--json", "--limit", "0").stdout.splitlines()]
        assert [m["to"] for m in all_of_them] == [f"u{n}@elsewhere.test" for n in range(250)]
        text = run(server, "mailq").stdout
        assert "250 of 250 messages" in server.cli("sendmail", "-bp", "-C", str(server.config_path)).stdout
        assert text.count("@elsewhere.test") >= 250
        assert "250 of 250 messages" in text
        link = tmp_path / "mailq"
        link.symlink_to(server.binary)
        named = subprocess.run([str(link), "--config", str(server.config_path)], capture_output=True, text=True, timeout=60,
                               env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))
        assert named.returncode == 0, named
        assert "250 of 250 messages" in named.stdout
        run(server, "queue", "rm", *[m["id"] for m in all_of_them])
        server.wait_until_empty()
        assert run(server, "queue", "list").stdout == "The queue is empty.\n"
        assert run(server, "queue", "list", "--json").stdout == ""
        assert server.figures()["removed"] == 250


def test_stop_by_the_command_line(tmp_path):
    with Postrider(tmp_path, SITE) as server:
        server.send(to="someone@elsewhere.test")
        run(server, "stop")
        assert server.process.wait(30) == 0
        server.process = None
        assert run(server, "status", check=False).returncode == 69


def test_an_etrn_client_starts_its_queue(tmp_path):
    port = free_port()
    site = SITE + "domain down.test {{ recipients any; relay via smtp://127.0.0.1:{next_port} }}\n"
    with Postrider(tmp_path / "a", site, next_port=port) as first:
        queued(first, to="ok@down.test")
        with smtplib.SMTP("127.0.0.1", first.port, timeout=60) as client:
            client.ehlo("client.test")
            assert client.docmd("ETRN", "elsewhere.test")[0] == 459
            assert client.docmd("ETRN", "local.test")[0] == 459
            assert client.docmd("ETRN")[0] == 501
            with Postrider(tmp_path / "b", SITE.replace("domain local.test", "domain down.test"), port=port) as second:
                assert client.docmd("ETRN", "DOWN.test.")[0] == 250
                second.wait_for_mail(domain="down.test")
                first.wait_until_empty()
                assert client.docmd("ETRN", "@down.test")[0] == 250
