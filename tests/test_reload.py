"""Reload under load, and roles that die: no session dropped, nothing lost, nobody else suffers."""
import collections
import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import smtplib
import socket
import threading
import time

import pytest

from harness import Postrider, binary, free_port, is_alive, wait_until, without_trace

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1 }}
domain local.test {{ mailbox ok other; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
{more}
"""


class Load:
    """Sessions that hand in messages one after another, until told to end. What failed is kept."""

    def __init__(self, port, sessions=4):
        self.port = port
        self.ending = threading.Event()
        self.accepted = []
        self.failures = []
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(sessions)]

    def run(self, number):
        try:
            with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as client:
                for n in range(1_000_000):
                    if self.ending.is_set():
                        break
                    name = f"{number}-{n}"
                    client.sendmail("a@client.test", ["ok@local.test"], f"Subject: {name}\r\n\r\n{name}\r\n".encode())
                    self.accepted.append(name)
        except Exception as e:  # noqa: BLE001: whatever it is, the test shows it
            self.failures.append(repr(e))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join(60)


def reload(server, check=True):
    return server.cli("reload", "--config", str(server.config_path), check=check)


def names(mails):
    return [mail.rstrip(b"\n").rsplit(b"\n", 1)[1].decode() for mail in mails]


def test_reload_under_load_drops_no_session(tmp_path):
    with Postrider(tmp_path, SITE, more="") as server:
        second = free_port()
        with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as waits, Load(server.port) as load:
            waits.ehlo("client.test")
            waits.mail("a@client.test")
            waits.rcpt("ok@local.test")  # a transaction that is open over all that follows
            wait_until(lambda: len(load.accepted) >= 20, what="load")

            server.write_config(SITE, more=f"""
listen mx second {{ address 127.0.0.1:{second} }}
domain new.test {{ mailbox anna; alias postmaster -> anna; deliver maildir {tmp_path}/new-mail/{{domain}}/{{local}} }}
""")
            reload(server)
            with smtplib.SMTP("127.0.0.1", second, timeout=60) as client:
                client.sendmail("a@client.test", ["anna@new.test"], b"Subject: new\r\n\r\nnew\r\n")
            new = tmp_path / "new-mail/new.test/anna/new"
            wait_until(lambda: new.is_dir() and list(new.iterdir()), what="mail in the new directory")
            server.send(to="anna@new.test")  # the old listener takes mail for the new domain

            at = len(load.accepted)
            server.write_config(SITE.replace("domain local.test", "domian local.test"), more="")
            broken = reload(server, check=False)
            assert broken.returncode == 78
            assert f"{server.config_path}:5:1" in broken.stderr, broken.stderr
            assert "domain" in broken.stderr
            wait_until(lambda: len(load.accepted) >= at + 20, what="load after the broken file")

            server.write_config(SITE, more="")
            reload(server)  # the listener and the domain go again
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", second), timeout=10)
            with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
                client.ehlo("client.test")
                client.mail("b@elsewhere.test")
                assert client.rcpt("nobody@local.test")[0] == 550
            assert waits.data(b"Subject: long\r\n\r\nlong\r\n")[0] == 250
        assert load.failures == []
        mails = server.wait_for_mail(count=len(load.accepted) + 1)
        wait_until(lambda: server.figures()["messages"] == 0, what="an empty queue")
        mails = server.mails()
        assert sorted(names(mails)) == sorted([*load.accepted, "long"])
        assert server.figures()["balanced"] == 1
        # The old generations went when their last sessions had ended.
        wait_until(lambda: {role["generation"] for role in server.status()["roles"]} == {3}, what="one generation")


def test_reload_by_signal_and_its_refusal_in_the_log(tmp_path):
    with Postrider(tmp_path, SITE, more="") as server:
        server.write_config(SITE, more="domain two.test { mailbox x; alias postmaster -> x; deliver maildir " +
                            f"{tmp_path}/mail/two/{{local}} }}")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.log_events("configuration-reloaded"), what="the reload")
        server.send(to="x@two.test")
        wait_until(lambda: len(list((tmp_path / "mail/two/x/new").glob("*"))) == 1, what="mail for the new domain")
        server.write_config("hostname mx.local.test\nnonsense\n")
        server.process.send_signal(signal.SIGHUP)
        (kept,) = wait_until(lambda: server.log_events("configuration-kept"), what="the refusal")
        assert f"{server.config_path}:2:1" in kept["why"]
        server.send(to="x@two.test")


def test_a_port_of_ours_under_another_address_needs_a_new_start(tmp_path):
    with Postrider(tmp_path, SITE, more="") as server:
        server.write_config(SITE.replace("address 127.0.0.1:", "address 0.0.0.0:"), more="")
        refused = reload(server, check=False)
        assert refused.returncode == 78
        assert "the server itself listens at this port" in refused.stderr
        assert "needs a stop and a start" in refused.stderr


@pytest.mark.parametrize(("more", "says"), [
    ("listen mx taken {{ address 127.0.0.1:{taken} }}", "cannot listen"),
    ("domain d.test {{ mailbox x; alias postmaster -> x; deliver maildir /proc/nowhere/{{{{local}}}} }}", "mail directory"),
    ("state /elsewhere", ""),
])
def test_what_this_machine_refuses_changes_nothing(tmp_path, more, says):
    with socket.socket() as taken, Postrider(tmp_path, SITE, more="") as server:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free = free_port()
        server.write_config(SITE, more=f"listen mx free {{ address 127.0.0.1:{free} }}\n" +
                            more.format(taken=taken.getsockname()[1]).replace("{{", "{").replace("}}", "}"))
        refused = reload(server, check=False)
        assert refused.returncode == 78
        assert says in refused.stderr
        with pytest.raises(ConnectionRefusedError):  # what had been opened before the failure is closed again
            socket.create_connection(("127.0.0.1", free), timeout=10)
        server.send()
        server.wait_for_mail()
        server.write_config(SITE, more="")
        reload(server)
        server.send()
        server.wait_for_mail(count=2)


def test_a_refused_reload_leaves_each_port_to_whom_it_belongs(tmp_path):
    with socket.socket() as taken, Postrider(tmp_path, SITE, more="users file users") as server:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server.write_config(SITE.replace("listen mx {{", "listen submission {{").replace("; relay from 127.0.0.1", ""),
                            more=f"users file users\nlisten mx other {{ address 127.0.0.1:{taken.getsockname()[1]} }}")
        assert "cannot listen" in reload(server, check=False).stderr
        receivers = [pid for name, pid in server.role_pids().items() if name.startswith("receiver")]
        for pid in receivers:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in receivers), what="the end of all receivers")
        server.send()  # whoever comes in their place serves port 25, as before
        server.wait_for_mail()


def test_nobody_makes_way_for_what_does_not_start(tmp_path):
    """The role `fetch` wants its directory: with a file in the way it ends again and again, and so does the next reload's. That
    one's generation takes the place of the one that never came up whole, and of no other."""
    with Postrider(tmp_path, "mta-sts off\n" + SITE, more="") as server:
        def generations(state):
            return {role["generation"] for role in server.status()["roles"] if role["state"] == state}

        place = server.state / "mta-sts"
        place.write_text("in the way")
        for generation in (2, 3):
            server.write_config(SITE, more="")
            partly = reload(server, check=False)
            assert partly.returncode == 69
            assert "not started: fetch 0\n" in partly.stderr, partly.stderr
            wait_until(lambda: generations("running") == {1, generation}, what=f"generations 1 and {generation}")
        server.send()
        server.wait_for_mail()
        place.unlink()
        wait_until(lambda: {role["generation"] for role in server.status()["roles"]} == {3}, what="one generation")
        server.send()
        server.wait_for_mail(count=2)


def test_a_role_that_cannot_start_keeps_nobody_from_being_ready(tmp_path):
    """A service manager would end what is not ready in its time, and start it again, for ever."""
    place = tmp_path / "mail"
    place.write_text("in the way")
    with Postrider(tmp_path, SITE, more="") as server:  # start() has waited for it
        (told,) = server.logged("ready-in-part")
        assert told["level"] == "error" and told["but"] == "these roles have not started: mailbox 0"
        assert not server.log_events("ready")
        server.send()
        place.unlink()
        server.wait_for_mail()
        server.logged("ready")


def test_many_reloads_under_load(tmp_path):
    with Postrider(tmp_path, SITE, more="") as server:
        with Load(server.port, sessions=2) as load:
            for _ in range(4):
                reload(server)
        assert load.failures == []
        server.wait_for_mail(count=len(load.accepted))
        server.wait_until_empty()
        assert sorted(names(server.mails())) == sorted(load.accepted)


def test_no_mail_is_refused_while_its_mailboxes_move(tmp_path):
    """A job that was handed out before a reload finds out behind it that its Maildir is not there any more."""
    moved = SITE.replace("deliver maildir {mail}/", "deliver maildir {mail}-moved/")
    places = [tmp_path / name / "local.test" / "ok" for name in ("mail", "mail-moved")]
    for place in places:
        place.parent.mkdir(parents=True)
        place.write_text("in the way")
    with Postrider(tmp_path, SITE, more="") as server:
        with Load(server.port) as load:
            wait_until(lambda: len(load.accepted) >= 1500, 300, "a backlog")
        assert load.failures == []
        wait_until(lambda: server.figures()["waiting"] == len(load.accepted), 300, "all to wait")
        for place in places:
            place.unlink()
        server.cli("queue", "retry", "--all", "--config", str(server.config_path))
        for turn in range(50):
            server.write_config(SITE if turn % 2 else moved, more="")
            reload(server)
            if server.figures()["messages"] == 0:
                break
        server.wait_until_empty()
        assert not [line for line in server.log_events("attempt") if line["result"] == "failed"]
        got = [file.read_bytes() for place in places if place.exists() for file in (place / "new").iterdir()]
        assert sorted(names(got)) == sorted(load.accepted)


def test_a_suspect_that_waits_for_its_turn_follows_its_mailbox(tmp_path):
    """It goes alone, and what it waits for stands still: a reload moves its Maildir, and it goes there by a new process."""
    with Postrider(tmp_path, SITE, more="") as server:
        def place(message):
            return server.queue_show(message)["recipients"][0]["place"]

        def send_to_stopped(to):
            # It has its link, or what is "in flight" would wait for the next process.
            wait_until(lambda: all(role["state"] == "running" for role in server.status()["roles"]), what="all roles")
            pid = server.role_pids()["mailbox 0"]
            os.kill(pid, signal.SIGSTOP)
            known = {entry["id"] for entry in server.queue()}
            server.send(to=to)
            (message,) = {entry["id"] for entry in server.queue()} - known
            wait_until(lambda: place(message) == "in flight", what=f"mail for {to} to be handed out")
            return pid, message

        pid, suspect = send_to_stopped("ok@local.test")
        server.cli("queue", "hold", suspect, "--config", str(server.config_path))
        os.kill(pid, signal.SIGABRT)
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: place(suspect) == "held", what="the suspect to be held")
        wait_until(lambda: server.role_pids().get("mailbox 0", pid) != pid, what="a new process")
        pid, _ = send_to_stopped("other@local.test")
        try:
            server.cli("queue", "release", suspect, "--config", str(server.config_path))
            wait_until(lambda: place(suspect) == "in flight", what="the suspect to be handed out")
            server.write_config(SITE.replace("deliver maildir {mail}/", "deliver maildir {mail}-moved/"), more="")
            reload(server)
            moved = tmp_path / "mail-moved/local.test/ok/new"
            wait_until(lambda: moved.is_dir() and list(moved.iterdir()), what="the suspect where its mailbox is now")
        finally:
            os.kill(pid, signal.SIGCONT)
        server.wait_until_empty()
        assert server.mails() == [] and len(server.mails("other")) == 1


def test_when_a_reload_is_said_to_be_done_no_former_receiver_accepts(tmp_path):
    def has_started(generation):
        states = [role["state"] for role in server.status()["roles"] if role["generation"] == generation]
        return len(states) > 1 and set(states) == {"running"}  # the store is the first of it

    with Postrider(tmp_path, SITE, more="") as server, concurrent.futures.ThreadPoolExecutor() as pool:
        second = free_port()
        server.write_config(SITE, more=f"listen mx second {{ address 127.0.0.1:{second} }}")
        reload(server)
        receiver = next(role["pid"] for role in server.status()["roles"] if role["role"] == "receiver" and role["generation"] == 2)
        server.write_config(SITE, more="")
        os.kill(receiver, signal.SIGSTOP)
        try:
            reloading = pool.submit(reload, server)
            wait_until(lambda: has_started(3), what="the new generation")
            assert not reloading.done(), "said to be done while a former receiver listens"
        finally:
            os.kill(receiver, signal.SIGCONT)
        reloading.result(60)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", second), timeout=10)


def test_a_former_receiver_that_does_not_let_go_is_told_of(tmp_path):
    with Postrider(tmp_path, SITE, more="") as server:
        receiver = server.role_pids()["receiver 0"]
        os.kill(receiver, signal.SIGSTOP)
        try:
            said = reload(server)
        finally:
            os.kill(receiver, signal.SIGCONT)
        assert "a receiver of the former configuration still accepts" in said.stdout + said.stderr
        wait_until(lambda: {role["generation"] for role in server.status()["roles"]} == {2}, what="one generation")
        assert reload(server).stderr == ""


def test_a_mailbox_that_was_removed_returns_only_its_own_mail(tmp_path):
    """One message waits for two mailboxes in one job; when they are tried again one of them is gone, then both."""
    recipients = [f"{name}@local.test" for name in ("ok", "other")]
    places = [tmp_path / "mail/local.test" / name for name in ("ok", "other")]

    def tried():
        return [(line["to"], line["result"], line["status"]) for line in server.log_events("attempt")
                if line["to"] in recipients]

    with Postrider(tmp_path, SITE, more="") as server:
        for kept, left in ((recipients[1:], "other; alias postmaster -> other"), ([], "new; alias postmaster -> new")):
            for place in places:
                place.write_text("in the way")
            before = len(tried())
            server.write_config(SITE, more="")
            reload(server)
            server.send(to=recipients)
            wait_until(lambda: len(tried()) == before + 2, what="two failures for now")
            assert {result for _, result, _ in tried()[before:]} == {"deferred"}
            server.write_config(SITE.replace("ok other; alias postmaster -> ok", left), more="")
            reload(server)
            for place in places:
                place.unlink()
            server.cli("queue", "retry", "--all", "--config", str(server.config_path))
            wait_until(lambda: len(tried()) >= before + 4, what="both to be tried again")
            assert sorted(tried()[before + 2:]) == [
                (to, "delivered", "2.0.0") if to in kept else (to, "failed", "5.1.1") for to in recipients]
            assert [len(server.mails(name)) for name in ("ok", "other")] == [0, len(kept)]
            shutil.rmtree(places[1], ignore_errors=True)


def test_long_answers_come_whole(tmp_path):
    with Postrider(tmp_path, SITE, more="") as server, contextlib.ExitStack() as sessions:
        for _ in range(5):  # each session keeps its generation's processes
            client = sessions.enter_context(smtplib.SMTP("127.0.0.1", server.port, timeout=60))
            assert client.noop()[0] == 250
            reload(server)
        report = server.cli("status", "--json", "--config", str(server.config_path)).stdout
        assert len(json.loads(report)["roles"]) > 20 and len(report) > 6000
        config = server.config_path.read_text()
        server.config_path.write_text(config + "".join(f"{'x' * 300}{i}\n" for i in range(15)))
        refused = reload(server, check=False)
        assert refused.returncode == 78 and refused.stderr.count("is not known") == 15
        server.config_path.write_text(config)


def test_stop_in_the_middle_of_a_reload(tmp_path):
    with Postrider(tmp_path, SITE, more="") as server:
        server.process.send_signal(signal.SIGHUP)
        assert server.stop(30) == 0


def test_stop_under_load_loses_and_doubles_nothing(tmp_path):
    with Postrider(tmp_path, SITE, more="") as server:
        with Load(server.port) as load:
            wait_until(lambda: len(load.accepted) >= 50 and
                       len({name.split("-")[0] for name in load.accepted}) == len(load.threads), what="load by every session")
            assert server.stop(30) == 0
        assert all("421" in f or "Disconnected" in f or "Reset" in f or "BrokenPipe" in f or "451" in f
                   for f in load.failures), load.failures
        server.start()
        server.wait_until_empty()
        got = names(server.mails())
        assert sorted(set(got)) == sorted(got), "something came twice"
        assert set(load.accepted) <= set(got)


@pytest.mark.parametrize("role", ["receiver 0", "sender 0", "sender 1", "mailbox 0", "gate 0", "resolver 0", "checker 0",
                                  "console 0", "store 0", "submission 0", "keys 0", "fetch 0"])
def test_a_killed_role_comes_back(tmp_path, role):
    with Postrider(tmp_path, SITE, more="") as server:
        server.send()
        server.wait_for_mail()
        pid = server.role_pids()[role]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.role_pids().get(role, pid) != pid, what="a new process")
        until = time.monotonic() + 20
        while True:  # a receiver says 451 while the store is away
            with contextlib.suppress(smtplib.SMTPException, OSError):
                server.send(content=b"Subject: after\r\n\r\nafter\r\n")
                break
            assert time.monotonic() < until
        wait_until(lambda: "after" in names(server.mails()), what="mail after the restart")
        wait_until(lambda: all(r["state"] == "running" for r in server.status()["roles"]), what="all roles")


def has_planted_crash():
    return b"X-Planted-Crash:" in binary().read_bytes()


@pytest.mark.skipif(not has_planted_crash(), reason="needs a build with -Dplanted_crash=true")
def test_a_message_that_crashes_a_sender_is_held_after_two_deaths(tmp_path):
    with Postrider(tmp_path / "b", SITE, more="") as second:
        server = Postrider(tmp_path / "a", SITE.replace("domain local.test", "domain none.test"), more="", next_port=second.port)
        server.crashes = lambda: ""  # two are meant
        with server:
            for n in range(10):
                server.send(content=f"Subject: {n}\r\n\r\nbefore-{n}\r\n".encode())
            server.send(to="other@local.test", content=b"X-Planted-Crash: yes\r\n\r\npoison\r\n")
            for n in range(20):
                server.send(content=f"Subject: {n}\r\n\r\nafter-{n}\r\n".encode())
            wanted = sorted([f"before-{n}" for n in range(10)] + [f"after-{n}" for n in range(20)])
            wait_until(lambda: len(second.mails()) >= 30 and sorted(set(names(second.mails()))) == wanted, what="all others")
            (held,) = wait_until(lambda: (q := server.queue()) and len(q) == 1 and q[0]["held"] and q, what="the held one")
            shown = server.queue_show(held["id"])
            assert shown["deaths"] == 2, shown
            assert "crash" in shown["held-why"] or "died" in shown["held-why"], shown["held-why"]
            server.logged("process-crashed-with-message", 2)
            assert server.figures()["balanced"] == 1
            deaths = server.logged("role-ended", 2, role="sender")
            assert len(deaths) == 2, deaths
            # It stays held over a restart; released, one more death holds it again.
            server.stop()
            server.start()
            (held,) = wait_until(lambda: server.queue(), what="the queue")
            assert held["held"]
            server.cli("queue", "release", held["id"], "--config", str(server.config_path))
            wait_until(lambda: server.queue_show(held["id"])["deaths"] == 2 and server.queue()[0]["held"], what="held again")
            server.cli("queue", "rm", held["id"], "--config", str(server.config_path))
            server.wait_until_empty()
        # At most one duplicate of each for a death of its sender; there were three.
        assert max(collections.Counter(names(second.mails())).values()) <= 1 + 3
        assert all(without_trace(mail) for mail in second.mails())
