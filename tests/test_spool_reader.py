"""Spools that our code wrote, read by the independent reader: it finds what lives there, and sees what is damaged."""
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

import pytest

from harness import binary

sys.path.insert(0, os.path.dirname(__file__))
import spool_reader  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = binary().parent
BLOCK = 4096


def fill(directory, messages, segment_bytes, end):
    """What lives in the spool then, by id, as our own code sees it."""
    command = [BUILD / "spool_fill", directory, str(messages), str(segment_bytes), end]
    done = subprocess.run(command, check=True, capture_output=True, timeout=120)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["id"]: line for line in lines}


def read(directory):
    """Exit code and report of the reader as a program."""
    done = subprocess.run(["/usr/bin/python3", ROOT / "tests" / "spool_reader.py", directory], capture_output=True, timeout=120)
    return done.returncode, json.loads(done.stdout)


def segments(directory):
    return sorted(directory.glob("*.segment"))


@pytest.mark.parametrize("segment_bytes", [65536, 262144, 1 << 20])
@pytest.mark.parametrize("end", ["close", "kill"])
def test_reader_finds_what_lives(tmp_path, segment_bytes, end):
    want = fill(tmp_path, 150, segment_bytes, end)
    code, report = read(tmp_path)
    assert (code, report["problems"]) == (0, [])
    assert {m["id"]: m for m in report["messages"]} == want
    assert [m["id"] for m in report["messages"]] == list(want), "in the order of acceptance"
    counters = report["counters"]
    assert counters["accepted"] == sum(count for name, count in counters.items() if name != "accepted")


def test_no_spool(tmp_path):
    code, report = read(tmp_path)
    assert code == 2 and not report["sound"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("spool")
    return directory, fill(directory, 50, 65536, "close")


def damaged(filled, tmp_path, number, change):
    """A copy with one segment changed, read."""
    directory, want = filled
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    path = segments(copy)[number]
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    try:
        return spool_reader.Spool(str(copy)).report(), want
    finally:
        shutil.rmtree(copy)


def expect_only_loss(report, want):
    """Whatever is still there is right."""
    for message in report["messages"]:
        expected = want[message["id"]] if message["id"] in want else None
        if expected is None or message["content_hash"] is None:
            assert report["problems"]
        elif message != expected:
            assert {**message, "recipients": 0, "held": 0} == {**expected, "recipients": 0, "held": 0}, "only a settle was lost"


def test_each_zeroed_block_is_seen(filled, tmp_path):
    directory, want = filled
    seen = 0
    for number, path in enumerate(segments(directory)):
        original = path.read_bytes()
        head = spool_reader.Segment(str(path), Quiet()).head
        if head["state"] == spool_reader.FREE:
            continue
        used = head["end"] if head["state"] == spool_reader.SEALED else max(
            r[6] + r[8] for r in walked(path).records)
        for at in range(0, len(original), BLOCK):
            if at >= used and at != len(original) - BLOCK or not any(original[at:at + BLOCK]):
                continue

            def zero(data, at=at):
                data[at:at + BLOCK] = bytes(BLOCK)

            report, want = damaged(filled, tmp_path, number, zero)
            last_proof = head["state"] == spool_reader.OPEN and at >= used - BLOCK and at < used
            assert report["problems"] or last_proof, f"block {at // BLOCK} of {path.name}"
            expect_only_loss(report, want)
            assert len(report["messages"]) >= len(want) - 20
            seen += 1
    assert seen > 60


class Quiet:
    def problem(self, *args):
        pass

    remark = problem


def walked(path):
    segment = spool_reader.Segment(str(path), Quiet())
    segment.walk()
    return segment


def test_flipped_bits_are_seen(filled, tmp_path):
    directory, want = filled
    chance = random.Random(42)
    in_use = [n for n, p in enumerate(segments(directory)) if walked_state(p) != spool_reader.FREE]
    for _ in range(60):
        number = chance.choice(in_use)
        segment = walked(segments(directory)[number])
        record = chance.choice([r for r in segment.records if r[0] != spool_reader.PROOF])
        at = record[6] + chance.randrange(record[7] + len(record[5]))

        def flip(data, at=at, bit=1 << chance.randrange(8)):
            data[at] ^= bit

        report, want = damaged(filled, tmp_path, number, flip)
        assert report["problems"], f"byte {at} of {segment.name}"
        expect_only_loss(report, want)


def walked_state(path):
    return spool_reader.Segment(str(path), Quiet()).head["state"]


def test_a_batch_cut_by_a_crash_is_no_problem(tmp_path):
    want = fill(tmp_path, 40, 1 << 20, "kill")
    [path] = [p for p in segments(tmp_path) if walked_state(p) == spool_reader.OPEN]
    segment = walked(path)
    last_accept = [r for r in segment.records if r[0] == spool_reader.ACCEPT][-1]
    assert last_accept[2] > segment.proven
    data = bytearray(path.read_bytes())
    data[last_accept[6] + 40:] = bytes(len(data) - last_accept[6] - 40 - BLOCK) + data[-BLOCK:]
    path.write_bytes(data)
    code, report = read(tmp_path)
    assert (code, report["problems"]) == (0, [])
    assert report["remarks"]
    assert {m["id"] for m in report["messages"]} == set(list(want)[:-1])
    assert set(fill(tmp_path, 0, 1 << 20, "close")) == {m["id"] for m in report["messages"]} | {list(want)[-1]}, \
        "our recovery agrees, and the id can be used anew"
    assert read(tmp_path)[0] == 0
