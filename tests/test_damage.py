"""A disk that changed what it keeps: detected, reported, quarantined; who can be told is told, and all else is delivered."""
import json

from harness import Postrider, free_port, parse, wait_until
from peers import sink_at

SITE = """
hostname mx.local.test
state {state}
listen mx {{ address 127.0.0.1:{port}; relay from 127.0.0.1 }}
domain local.test {{ mailbox ok; alias postmaster -> ok; deliver maildir {mail}/{{domain}}/{{local}} }}
route default {{ via 127.0.0.1:{next_port}; tls off }}
retry 1h for 1d
"""
KIB = 1024


def flip(spool, marker):
    """One bit of the first place where the marker lies."""
    for path in sorted(spool.glob("*.segment")):
        content = path.read_bytes()
        at = content.find(marker)
        if at >= 0:
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(bytes([content[at] ^ 4]))
            return
    raise AssertionError(f"{marker} is nowhere")


def test_a_flipped_bit_costs_one_message(tmp_path):
    next_port = free_port()
    server = Postrider(tmp_path, SITE, next_port=next_port)
    bodies = {"small": b"x" * 100, "large": b"y" * 70 + b"\r\n", "good": b"z" * 100, "envelope": b"u" * 100}
    with server:
        for name, body in bodies.items():
            size = 300 * KIB if name == "large" else 200
            content = b"Subject: " + name.encode() + b"\r\n\r\n" + (body + b"\r\n") * (size // len(body)) + b"%" + name.encode()
            server.send(sender="ok@local.test", to=f"{name}-victim@elsewhere.test", content=content + b"\r\n")
        wait_until(lambda: server.figures()["attempts"] >= 3 and server.figures()["in-flight"] == 0, what="a dead next hop")
        assert server.stop() == 0
        for marker in (b"%small", b"%large", b"envelope-victim@"):
            flip(server.state / "spool", marker)
        server.start()
        server.logged("spool-recovered", 2)
        with sink_at(tmp_path, next_port, tmp_path / "sink"):
            server.cli("queue", "retry", "--all", "--config", str(server.config_path))
            notices = [parse(mail) for mail in server.wait_for_mail(count=2)]
            server.wait_until_empty()
        arrived = [mail.read_bytes() for mail in (tmp_path / "sink/new").iterdir()]
        assert len(arrived) == 1 and b"%good" in arrived[0]
        told = sorted(notice.get_payload()[1].get_payload()[1]["Final-Recipient"] for notice in notices)
        assert told == ["rfc822; large-victim@elsewhere.test", "rfc822; small-victim@elsewhere.test"]
        assert all(notice.get_payload()[1].get_payload()[1]["Status"] == "5.3.0" for notice in notices)
        damage = server.logged("spool-damage", 3)
        assert all(entry["file"].endswith(".segment") and entry["length"] > 0 for entry in damage)
        assert len(list((server.state / "spool/quarantine").iterdir())) >= 3
        assert server.figures()["balanced"] == 1
    print(f"3 bits flipped: {len(damage)} reports, 2 senders told, 1 envelope lost, all else delivered")


def test_what_cannot_be_read_ends_no_listing(tmp_path):
    """A page of which nothing can be read is not the last one."""
    server = Postrider(tmp_path, SITE, next_port=free_port())
    with server:
        many = [f"first-{number:0200}@elsewhere.test" for number in range(400)]  # more than any cache takes
        for to in (many, "second@elsewhere.test", "third@elsewhere.test"):
            server.send(sender="ok@local.test", to=to, content=b"Subject: x\r\n\r\nx\r\n")
        wait_until(lambda: (figures := server.figures())["attempts"] >= len(many) and figures["in-flight"] == 0, what="a dead next hop")
        assert server.stop() == 0
        server.start()  # nothing that came just now is in memory
        server.logged("spool-recovered", 2)
        flip(server.state / "spool", many[0].encode())
        assert server.figures()["messages"] == 3
        listed = server.cli("queue", "list", "--json", "--limit", "1", "--config", str(server.config_path)).stdout
        assert [json.loads(line)["to"] for line in listed.splitlines()] == ["second@elsewhere.test"]
        server.logged("spool-damage")
