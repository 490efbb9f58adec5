#!/usr/bin/python3
"""Reads a Postrider spool directory without Postrider's code: postrider-spool(5) in Python.

    spool_reader.py DIRECTORY          prints one JSON object; exit code 0: sound, 1: not, 2: no spool

Every record of every segment is checked, the log is replayed from its records alone (indexes are only compared), and the
content of every live message is read. A last batch that is not whole and was not proved to be on disk is a remark, since a
crash may leave one; everything else that is wrong is a problem.
"""
import json
import mmap
import os
import re
import struct
import sys

import xxhash  # Debian: python3-xxhash

BLOCK = 4096
HEADER = struct.Struct("<BBHIQQQIIQ")  # type, flags, 0, body length, LSN, id (two words), data length, 0, data hash
CHECK = 8
CHUNK, ACCEPT, SETTLE, STATE, DONE, PROOF, CHECKPOINT = range(1, 8)
DOUBTED = 100  # a DONE in a batch that is not whole: it may follow from a settle that is lost, and is one until another comes
SKIPPABLE, COVERS, WITHIN = 1, 2, 4
FREE, OPEN, SEALED = 1, 2, 3
STATES = ["pending", "delivered", "failed, notice owed", "failed, notice sent", "failed, no notice", "relayed", "expanded",
          "suppressed", "removed"]
OPEN_STATES = (0, 2)
SUCCESS_OWED = 2  # of "notices": a message stays until its notice of success is committed
TALLY = ["accepted", "delivered", "failed", "relayed", "expanded", "suppressed", "removed"]
TALLY_OF_STATE = {1: "delivered", 3: "failed", 4: "failed", 5: "relayed", 6: "expanded", 7: "suppressed", 8: "removed"}
ABSENT = 0xFFFFFFFF


def xxh3(data, seed=0):
    return xxhash.xxh3_64_intdigest(data, seed)


class Bad(Exception):
    """Bytes that say what no writer would."""


class Take:
    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def raw(self, size):
        if size > len(self.data) - self.at:
            raise Bad("a field reaches beyond its record")
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, form):
        return struct.unpack("<" + form, self.raw(struct.calcsize("<" + form)))[0]

    def text(self):
        size = self.number("I")
        return None if size == ABSENT else bytes(self.raw(size)).decode("utf-8", "surrogateescape")


def id_text(high, low):
    value, letters = high << 64 | low, "0123456789abcdefghjkmnpqrstvwxyz"
    return "".join(letters[value >> shift & 31] for shift in range(125, -1, -5))


# ---- bodies ----


def read_settle(take):
    settle = {"first": take.number("Q"), "last": take.number("Q")}
    flags, settle["deaths"], zero, count = take.number("B"), take.number("B"), take.number("H"), take.number("I")
    if flags > 15 or zero:
        raise Bad("unknown bits in a settle")
    settle.update(set_held=bool(flags & 1), held=bool(flags & 2), set_deaths=bool(flags & 4), ends=bool(flags & 8))
    statuses = []
    for _ in range(count):
        index, state, was, notices, _, attempts, _, next_wall = struct.unpack("<IBBBBH6sq", take.raw(24))
        if state >= len(STATES) or was >= len(STATES):
            raise Bad("an unknown state of a recipient")
        statuses.append({"index": index, "state": state, "was": was, "notices": notices, "attempts": attempts,
                         "next_wall": next_wall})
    settle["why"] = take.text() or ""
    for status in statuses:
        status["reply"] = take.text() or ""
        status["remote"] = take.text() or ""
    settle["statuses"] = statuses
    return settle


def read_envelope(take):
    if take.number("B") != 1:
        raise Bad("an envelope of another version")
    envelope = {"ret": take.number("B"), "body": take.number("B"), "flags": take.number("B"), "size": take.number("Q"),
                "accepted_wall": take.number("q"), "hold_until": take.number("q")}
    if envelope["flags"] & 32:
        envelope["deliver_within"] = take.number("q")
    for word in ("reverse_path", "envid", "helo", "client", "session", "trace"):
        envelope[word] = take.text()
    envelope["recipients"] = []
    for _ in range(take.number("I")):
        recipient = {"notify": take.number("B"), "origin": take.number("B")}
        for word in ("address", "orcpt", "given", "reverse_path"):
            recipient[word] = take.text()
        envelope["recipients"].append(recipient)
    return envelope


def read_base(body):
    take = Take(body)
    base = {"order": take.number("Q"), "accepted_spool": take.number("q"), "content_size": take.number("Q")}
    extents, state_size, settles_size, recipients = struct.unpack("<IIII", take.raw(16))
    base["extents"] = [struct.unpack("<QII", take.raw(16)) for _ in range(extents)]
    state = Take(take.raw(state_size))
    base["state"] = read_settle(state)
    settles = Take(take.raw(settles_size))
    if settles_size:
        base["settles_id"] = (settles.number("Q"), settles.number("Q"))
        base["settles"] = read_settle(settles)
    base["envelope"] = read_envelope(take)
    if take.at != len(body) or state.at != state_size or settles.at != settles_size:
        raise Bad("an envelope, state or settle of another length than said")
    if recipients != len(base["envelope"]["recipients"]):
        raise Bad("two counts of recipients differ")
    return base


# ---- segments ----


class Segment:
    def __init__(self, path, spool):
        self.name, self.spool = os.path.basename(path), spool
        with open(path, "rb") as file:  # mapped: of free segments only the headers are looked at
            self.data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if os.fstat(file.fileno()).st_size else b""
        self.records = []  # (type, flags, lsn, id, body, data or None, offset, head size, size)
        self.proven = self.lost = 0
        first = self.header(0)
        last = self.header(len(self.data) // BLOCK * BLOCK - BLOCK)
        self.head = first or last
        if first and first["state"] != FREE and last and last["state"] == SEALED and last["secret"] == first["secret"]:
            self.head = last
        if not self.head:
            if any(self.data[:BLOCK]) or any(self.data[-BLOCK:]):
                spool.problem("both headers are lost", self.name)
            return
        if self.head["state"] != FREE and not (first and last):
            spool.problem("one of two headers is damaged", self.name)

    def header(self, at):
        block = self.data[at:at + BLOCK] if at >= 0 else b""
        if len(block) != BLOCK or block[:8] != b"PRSPOOL\n" or xxh3(block[:504]) != struct.unpack_from("<Q", block, 504)[0]:
            return None
        take = Take(block, 8)
        names = ["version", "compat", "read_only", "incompat", "state", "zero"]
        head = {name: take.number("I") for name in names}
        for name in ["bytes", "sequence", "secret"]:
            head[name] = take.number("Q")
        head["created_spool"], head["created_wall"] = take.number("q"), take.number("q")
        for name in ["first_lsn", "last_lsn", "end", "index_offset", "index_hash"]:
            head[name] = take.number("Q")
        head["index_count"], _ = take.number("I"), take.number("I")
        head["tally"] = {name: take.number("Q") for name in TALLY}
        head["spool_time"] = take.number("q")
        if head["version"] != 1 or head["incompat"]:
            raise Bad(f"{self.name} was written by a newer version")
        return head

    def record_at(self, at, last_lsn, limit):
        """The record that stands at this offset, if one does that comes after last_lsn."""
        if at + HEADER.size + CHECK > limit:
            return None
        kind, flags, zero, size, lsn, high, low, data_size, zero2, data_hash = HEADER.unpack_from(self.data, at)
        head = HEADER.size + size + CHECK
        whole = (head + data_size + 7) // 8 * 8
        if kind == 0 or zero or zero2 or lsn <= last_lsn or at + whole > limit:
            return None
        if xxh3(self.data[at:at + head - CHECK], self.head["secret"]) != struct.unpack_from("<Q", self.data, at + head - 8)[0]:
            return None
        body, data = self.data[at + HEADER.size:at + head - CHECK], self.data[at + head:at + head + data_size]
        if (xxh3(data) if data else 0) != data_hash:
            data = None
        return kind, flags, lsn, (high, low), body, data, at, head, whole

    def next_record(self, at, last_lsn, limit):
        """The first record at or behind `at`, each multiple of 8 tried; words that could be its LSN tell where to look."""
        words = memoryview(self.data)[at:at + (limit - at) // 8 * 8].cast("Q")
        high = last_lsn + 2 + (limit - at) // 56
        for i in [i for i, word in enumerate(words) if last_lsn < word <= high]:
            record = self.record_at(at + i * 8 - 8, last_lsn, limit) if i else None
            if record and (record[0] != PROOF or record[6] % BLOCK == 0):
                return record
        return None

    def walk(self):
        """All records, and what is damaged between them: (offset, length, first missing LSN)."""
        head, gaps = self.head, []
        sealed = head["state"] == SEALED
        limit = min(head["end"] if sealed else head["bytes"] - BLOCK, len(self.data))
        at, lsn, batch_end, left, between = BLOCK, head["first_lsn"] - 1, 0, 0, True
        while True:
            record = self.record_at(at, lsn, limit)
            block_end = (at + BLOCK - 1) // BLOCK * BLOCK
            if not record and not between and not batch_end and not any(self.data[at:min(block_end, limit)]):
                at, between = block_end, True
                continue
            record = record or (self.next_record(at, lsn, limit) if at < limit else None)
            if not record:
                break
            kind, flags, found_lsn, _, body, data, found, _, size = record
            if found > at:
                gaps.append((at, found - at, lsn + 1))
                if kind == PROOF or found >= batch_end:
                    batch_end = 0
            self.lost += found_lsn - lsn - 1
            left -= min(left, found_lsn - lsn)
            lsn, at, between = found_lsn, found + size, False
            if kind == PROOF:
                proven, self.spool_time, sequence, batch, left = struct.unpack("<QqQII", body)
                if sequence != head["sequence"] or batch % BLOCK:
                    self.spool.problem("a PROOF of another segment", self.name, found)
                self.proven, batch_end = max(self.proven, proven), found + batch
            elif data is None:
                gaps.append((found, size, lsn))
            if kind > CHECKPOINT and not flags & SKIPPABLE:
                raise Bad(f"{self.name} has records of a newer version")
            self.records.append(record)
            if batch_end and left == 0:
                at, between, batch_end = batch_end, True, 0
        if not between:
            gaps.append((at, (batch_end or (at + BLOCK - 1) // BLOCK * BLOCK) - at, lsn + 1))
        elif sealed and at < limit:
            gaps.append((at, limit - at, lsn + 1))
        self.last_lsn = lsn
        if sealed:
            self.proven = head["last_lsn"]
            self.lost += max(0, head["last_lsn"] - lsn)
        for offset, size, missing in gaps:
            if missing > self.proven:
                self.spool.remark("the last batch is not whole", self.name, offset, size)
            else:
                self.spool.problem("damaged records", self.name, offset, size)
        self.torn_from = min((offset for offset, _, missing in gaps if missing > self.proven), default=len(self.data))
        if self.lost and not gaps:
            self.spool.problem(f"{self.lost} records are missing", self.name)
        self.records = [r for r in self.records if r[5] is not None or r[2] <= self.proven or r[0] == CHUNK]
        if sealed and not gaps:
            self.compare_index()

    def compare_index(self):
        want = b""
        for kind, flags, lsn, (high, low), body, _, offset, head, size in self.records:
            if kind in (CHUNK, PROOF) or kind > CHECKPOINT:
                continue
            want += struct.pack("<BBHIQQQII", kind, flags & 7, 0, offset, lsn, high, low, head, size)
            base = read_base(body) if kind == ACCEPT else {}
            if "settles" in base:
                want += struct.pack("<BBHIQQQII", DONE if base["settles"]["ends"] else SETTLE, WITHIN, 0, offset, lsn,
                                    *base["settles_id"], head, size)
        index = self.data[self.head["index_offset"]:][:self.head["index_count"] * 40]
        if index != want or xxh3(index) != self.head["index_hash"]:
            self.spool.problem("the index differs from the records", self.name, self.head["index_offset"])


# ---- the whole ----


class Spool:
    def __init__(self, path):
        self.problems, self.remarks, self.messages = [], [], {}
        names = sorted(n for n in os.listdir(path) if re.fullmatch(r"[0-9a-f]{8}\.segment", n))
        if not names:
            raise FileNotFoundError(f"{path}: no segments")
        files = [Segment(os.path.join(path, name), self) for name in names]
        self.free = [s for s in files if s.head and s.head["state"] == FREE]
        self.segments = sorted((s for s in files if s.head and s.head["state"] != FREE), key=lambda s: s.head["sequence"])
        self.numbers = {int(s.name[:8], 16) for s in files}
        for segment in self.segments:
            segment.walk()
        self.by_sequence = {s.head["sequence"]: s for s in self.segments}
        if len(self.by_sequence) != len(self.segments):
            self.problem("two segments have one number", path)
        for segment in self.segments:
            segment.records = [r for r in segment.records if r[2] <= segment.proven or self.has_pieces(r)]
        for older, newer in zip(self.segments, self.segments[1:]):
            if newer.head["first_lsn"] <= older.last_lsn:
                self.problem("LSNs of two segments overlap", newer.name)
        self.replay()
        self.count()

    def say(self, where, what, name, offset=None, size=None):
        where.append({"what": what, "in": name, **({"offset": offset} if offset is not None else {}),
                      **({"length": size} if size is not None else {})})

    def problem(self, *args):
        self.say(self.problems, *args)

    def remark(self, *args):
        self.say(self.remarks, *args)

    def events(self):
        """(LSN, type, id, settle or base, record, segment), oldest first, of all that concerns messages."""
        for segment in self.segments:
            for record in segment.records:
                kind, _, lsn, number, body, _, offset, _, _ = record
                try:
                    if kind in (SETTLE, DONE):
                        if kind == DONE and offset > segment.torn_from:
                            kind = DOUBTED
                        yield lsn, kind, number, read_settle(Take(body)), record, segment
                    elif kind in (ACCEPT, STATE):
                        base = read_base(body)
                        yield lsn, kind, number, base, record, segment
                        if "settles" in base:
                            kind = DONE if base["settles"]["ends"] else SETTLE
                            if kind == DONE and offset > segment.torn_from:
                                kind = DOUBTED
                            yield lsn, kind, base["settles_id"], base["settles"], record, segment
                except Bad as bad:
                    self.problem(str(bad), segment.name, offset)

    def replay(self):
        done = set()
        for lsn, kind, number, what, record, segment in self.events():
            if kind in (ACCEPT, STATE):
                if number in done:
                    self.problem("a message lives again after its DONE", segment.name, record[6])
                self.messages[number] = {"base": what, "record": record, "segment": segment, "settles": [what["state"]]}
            elif kind == DONE:
                done.add(number)
                self.messages.pop(number, None)
            elif number in self.messages:
                self.messages[number]["settles"].append(what)
                self.messages[number]["doubted"] = kind == DOUBTED
        for number, message in list(self.messages.items()):
            self.resolve(number, message)

    def resolve(self, number, message):
        recipients = message["base"]["envelope"]["recipients"]
        message["statuses"] = [{"state": 0, "attempts": 0, "reply": "", "remote": "", "notices": 0} for _ in recipients]
        message["held"] = False
        for settle in message["settles"]:
            if settle["set_held"]:
                message["held"] = settle["held"]
            for status in settle["statuses"]:
                if status["index"] >= len(recipients):
                    self.problem("a settle of a recipient that is not there", id_text(*number))
                    continue
                before = message["statuses"][status["index"]]
                if not status["reply"]:  # it says nothing new: what the remote said stays
                    status = dict(status, reply=before["reply"], remote=before["remote"])
                message["statuses"][status["index"]] = status
        if not any(s["state"] in OPEN_STATES or s["notices"] & SUCCESS_OWED for s in message["statuses"]):
            if message.get("doubted"):
                del self.messages[number]
                return
            self.problem("all recipients have ended, and there is no DONE", id_text(*number))
        message["content"] = self.content(number, message)

    def piece(self, sequence, offset, size):
        segment = self.by_sequence.get(sequence)
        piece = segment and segment.record_at(offset, 0, len(segment.data))
        return piece[5] if piece and piece[5] is not None and len(piece[5]) == size else None

    def has_pieces(self, record):
        """A crash came before the sync of all of them: the message was never accepted."""
        if record[0] not in (ACCEPT, STATE):
            return True
        try:
            extents = read_base(record[4])["extents"]
        except Bad:
            return True
        return all(extent[0] == 0 or self.piece(*extent) is not None for extent in extents)

    def content(self, number, message):
        pieces = []
        base, record = message["base"], message["record"]
        extents = base["extents"] or [(message["segment"].head["sequence"], record[6], len(record[5] or b""))]
        for extent in extents:
            piece = self.piece(*extent)
            if piece is None:
                self.problem("content of a message is lost", id_text(*number))
                return None
            pieces.append(piece)
        content = b"".join(pieces)
        if len(content) != base["content_size"]:
            self.problem("content of a message has another size", id_text(*number))
        return content

    def count(self):
        """Counters from the newest footer or CHECKPOINT on; accepted = ended + pending."""
        tally = dict.fromkeys(TALLY, 0)
        sealed = [s for s in self.segments if s.head["state"] == SEALED]
        if sealed:
            tally = dict(sealed[-1].head["tally"])
        newest = sealed[-1].head["sequence"] if sealed else 0
        for segment in self.segments:
            if segment.head["sequence"] <= newest:
                continue
            for kind, _, _, _, body, _, offset, _, _ in segment.records:
                if kind == CHECKPOINT:
                    take = Take(body)
                    tally = {name: take.number("Q") for name in TALLY}
                    take.number("q")
                    for _ in range(take.number("I")):
                        _, number = take.number("Q"), take.number("I")
                        if number not in self.numbers:
                            self.problem("the file of a segment is missing", f"{number:08x}.segment")
                elif kind in (SETTLE, DONE):
                    self.move(tally, read_settle(Take(body)))
                elif kind == ACCEPT:
                    base = read_base(body)
                    tally["accepted"] += len(base["envelope"]["recipients"])
                    self.move(tally, base["state"])
                    if "settles" in base:
                        self.move(tally, base["settles"])
        pending = sum(s["state"] in OPEN_STATES for m in self.messages.values() for s in m["statuses"])
        self.tally = {**tally, "pending": pending}
        ended = sum(count for name, count in tally.items() if name != "accepted")
        if tally["accepted"] != ended + pending:
            self.problem(f"{tally['accepted']} recipients were accepted, {ended} ended, {pending} are pending", "counters")

    @staticmethod
    def move(tally, settle):
        for status in settle["statuses"]:
            for state, by in ((status["was"], -1), (status["state"], 1)):
                if state in TALLY_OF_STATE:
                    tally[TALLY_OF_STATE[state]] += by

    def report(self):
        messages = []
        for number, m in sorted(self.messages.items(), key=lambda item: item[1]["base"]["order"]):
            envelope = m["base"]["envelope"]
            messages.append({
                "id": id_text(*number), "reverse_path": envelope["reverse_path"], "held": m["held"],
                "content_size": None if m["content"] is None else len(m["content"]),
                "content_hash": None if m["content"] is None else f"{xxh3(m['content']) if m['content'] else 0:016x}",
                "recipients": [{"address": r["address"], "state": STATES[s["state"]], "attempts": s["attempts"],
                                "reply": s["reply"]} for r, s in zip(envelope["recipients"], m["statuses"])]})
        return {"sound": not self.problems, "problems": self.problems, "remarks": self.remarks, "counters": self.tally,
                "segments": {"in_use": len(self.segments), "free": len(self.free)}, "messages": messages}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        spool = Spool(sys.argv[1])
    except (Bad, OSError) as error:
        print(json.dumps({"sound": False, "problems": [{"what": str(error)}]}))
        sys.exit(2)
    json.dump(spool.report(), sys.stdout, indent=1)
    print()
    sys.exit(0 if not spool.problems else 1)


if __name__ == "__main__":
    main()
