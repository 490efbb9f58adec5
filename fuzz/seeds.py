"""Seeds for the fuzz targets, made when they are needed: string literals of our unit tests, and files of the public suites in
../shared/conformance (none, if that is not there)."""

import hashlib
import os
import re

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHARED = os.environ.get("POSTRIDER_SHARED", os.path.join(os.path.dirname(SOURCE), "shared"))
LITERALS = re.compile(rb'"(?:\\.|[^"\\\n])*"(?:\s*"(?:\\.|[^"\\\n])*")*')
LITERAL = re.compile(rb'"((?:\\.|[^"\\\n])*)"')
ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]+|[0-7]{1,3}|.)", re.S)
SIMPLE = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
MANY = 600


class Target:
    """What the head comment of fuzz_NAME.c says."""

    def __init__(self, path):
        self.name = os.path.basename(path)[len("fuzz_"):-len(".c")]
        head = open(path).read().split("*/")[0]
        lines = dict(re.findall(r"^ \* (Aims at|Seeds|Longest|Choices|Test):((?:.*\n)(?: \*  +.*\n)*)", head, re.M))
        words = lambda key: lines.get(key, "").replace(" * ", " ").split()
        self.aims, self.seeds = words("Aims at"), words("Seeds")
        self.longest = int(words("Longest")[0])
        self.choices = int((words("Choices") or ["0"])[0])
        self.test = int(words("Test")[0])


def targets():
    folder = os.path.join(SOURCE, "fuzz")
    return [Target(os.path.join(folder, name)) for name in sorted(os.listdir(folder))
            if re.fullmatch(r"fuzz_\w+\.c", name)]


def unescape(text):
    def one(match):
        code = match.group(1)
        if code[:1] == b"x":
            return bytes([int(code[1:], 16) & 255])
        if code[:1].isdigit():
            return bytes([int(code, 8) & 255])
        return SIMPLE.get(code, code)
    return ESCAPE.sub(one, text)


def literals(path):
    """Every string of a C file, and all strings of a table's line together."""
    text = re.sub(rb"^\s*#include.*$", b"", open(path, "rb").read(), flags=re.M)
    strings = [b"".join(unescape(part) for part in LITERAL.findall(run)) for run in LITERALS.findall(text)]
    for row in re.findall(rb"\{[^{}]*\}", text):
        parts = [unescape(part) for part in LITERAL.findall(row)]
        if len(parts) > 1:
            strings.append(b"".join(parts))
            strings.append(b"\xff".join(parts[1:]))
    return strings + [spoken(string) for string in strings if b"S: " in string]


def spoken(script):
    """A script of smtp/test_peer.h as content, 0xff, and what its server says; a connection's end is another 0xff."""
    says = b"".join(line[3:] + b"\r\n" if line.startswith(b"S: ") else b"\xff" if line == b"==" else b""
                    for line in script.splitlines())
    return b"Subject: x\r\n\r\n.a\r\nb\r\n\xff" + says


def files(folder):
    for directory, _, names in sorted(os.walk(os.path.join(SHARED, "conformance", folder))):
        for name in sorted(names):
            if name != "SOURCE" and not name.startswith("LICENSE"):
                yield open(os.path.join(directory, name), "rb").read()


def pieces(content, longest):
    """A file that is too long gives its beginning, and if it is a list of cases, those."""
    yield content[:longest]
    if len(content) > longest:
        for line in content.splitlines()[:500]:
            yield line[:longest]


def make(target, folder, most=MANY, shared=True):
    """Writes seeds for a target, and says how many. Not `shared`: only those of this tree, which are the same everywhere."""
    os.makedirs(folder, exist_ok=True)
    found = set()
    for source in target.seeds:
        if source == "zeros":  # what counts and lengths are made of
            for first in range(16):
                found.update(bytes([first]) + bytes([fill]) * size for fill in (0, 1) for size in (40, 200, 700))
        elif source.endswith(".c"):
            found.update(literals(os.path.join(SOURCE, "src", source)))
        elif shared:
            for content in files(source):
                found.update(pieces(content, target.longest))
    chosen = sorted(found, key=lambda s: (len(s), s))
    chosen = chosen[::1 + len(chosen) // most]
    for content in chosen:
        for lead in {b"\0" * target.choices, b"\7" * target.choices}:
            seed = (lead + content)[:target.longest]
            with open(os.path.join(folder, hashlib.sha1(seed).hexdigest()), "wb") as f:
                f.write(seed)
    return len(os.listdir(folder))
