"""The client of the crash tests: sessions that send without end, and write down what got its 250, on a disk that stays.

A message's name gives its recipients and content, so that whatever arrives can be compared, acknowledged or not.
"""
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import re
import smtplib
import threading
import time

LOCAL = "ok@local.test"
QUEUED_AS = re.compile(r" as ([0-9A-Za-z]+)")
WORDS = "the queue holds what it took until someone else has said so and noted it where no crash can reach".split()


def message_of(name):
    """(recipients, content with CRLF): always the same for one name. Names that end with L are large."""
    dice = random.Random(name)
    recipients = [f"x{i}@elsewhere.test" for i in range(dice.choice([0, 1, 1, 2, 3]))]
    if not recipients or dice.random() < 0.2:
        recipients.append(LOCAL)
    size = 4 << 20 if name.endswith("L") else dice.choice([200, 1000, 1000, 3000, 3000, 8000, 100_000])
    lines = [f"From: <a@client.test>\r\nTo: <{recipients[0]}>\r\nDate: Mon, 2 Mar 2026 10:00:00 +0000\r\n"
             f"Message-ID: <{name}@client.test>\r\nSubject: crash test\r\nX-Crash-Name: {name}\r\n\r\n"]
    line = " ".join(dice.choice(WORDS) for _ in range(12))
    while size > 0:
        lines.append(f".{line} {dice.getrandbits(60):x}\r\n" if dice.random() < 0.05 else f"{line} {dice.getrandbits(60):x}\r\n")
        size -= len(lines[-1])
    return recipients, "".join(lines).encode()


def hash_of(content):
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class Client:
    """`sessions` at a time in a process of their own, `rate` messages a second together."""

    def __init__(self, port, log_path, prefix, sessions, rate):
        self.port, self.log_path, self.prefix, self.sessions = port, log_path, prefix, sessions
        self.pause = multiprocessing.Value("d", sessions / rate)
        self.large = multiprocessing.Value("b", 0)
        self.over = multiprocessing.Event()
        self.counts = {name: multiprocessing.Value("q", 0) for name in ("tried", "accepted", "refused", "broken", "rejected")}
        self.replies = multiprocessing.SimpleQueue()  # replies that are not 2xx or 4xx
        self.process = multiprocessing.get_context("fork").Process(target=self._run, daemon=True)

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        self.over.set()
        self.process.join(120)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError("a session of the client does not end")

    def count(self, name):
        return self.counts[name].value

    def _add(self, name):
        with self.counts[name].get_lock():
            self.counts[name].value += 1

    def _run(self):
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_DSYNC, 0o644)
        threads = [threading.Thread(target=self._session, args=(i, log)) for i in range(self.sessions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _session(self, number, log):
        dice, count, parent = random.Random(f"{self.prefix}{number}"), 0, os.getppid()
        while not self.over.is_set() and os.getppid() == parent:
            try:
                # Shorter than a fault that stays: a client that waits for a frozen server is no load.
                with smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test", timeout=20) as smtp:
                    for _ in range(dice.choice([1, 5, 50])):
                        if self.over.is_set():
                            break
                        count += 1
                        self._send(smtp, f"{self.prefix}-{number}-{count}{'L' if self.large.value else ''}", log)
                        self.over.wait(dice.uniform(0, 2 * self.pause.value))
            except (smtplib.SMTPServerDisconnected, OSError) as failed:
                if isinstance(failed, smtplib.SMTPResponseException):
                    self._refused(failed)
                else:
                    self._add("broken")
                self.over.wait(0.2)

    def _send(self, smtp, name, log):
        recipients, content = message_of(name)
        self._add("tried")
        try:
            smtp.ehlo_or_helo_if_needed()
            for command in ["MAIL FROM:<a@client.test>", *(f"RCPT TO:<{to}>" for to in recipients)]:
                code, text = smtp.docmd(command)
                if code != 250:
                    raise smtplib.SMTPResponseException(code, text)
            code, text = smtp.data(content)
        except smtplib.SMTPResponseException as refused:
            self._refused(refused)
            with contextlib.suppress(smtplib.SMTPException):
                smtp.rset()
            return
        if code != 250:
            self._refused(smtplib.SMTPResponseException(code, text))
            return
        text = text.decode("ascii", "replace")
        queue_id = QUEUED_AS.search(text)
        line = json.dumps({"name": name, "id": queue_id[1] if queue_id else "", "to": recipients, "hash": hash_of(content),
                           "at": time.time()})
        os.write(log, line.encode() + b"\n")  # O_DSYNC
        self._add("accepted")

    def _refused(self, refused):
        if 400 <= refused.smtp_code < 500:
            self._add("refused")
        elif refused.smtp_code < 200:  # a line cut off by the end of who wrote it
            self._add("broken")
        else:
            self._add("rejected")
            self.replies.put(f"{refused.smtp_code} {refused.smtp_error}")


def acknowledged(log_path):
    with open(log_path, encoding="utf-8") as log:
        return [json.loads(line) for line in log]
