"""Every message of the public MIME suites through the conversion to 7-bit: decoded, each part is the same as before.

The decoder is Python's email package, which shares nothing with ours; the converter is a unit test's executable.
"""
import email
import email.header
import glob
import os
import pathlib
import subprocess

import pytest

from harness import binary

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("POSTRIDER_SHARED", ROOT / ".." / "shared"))
CONVERTER = binary().parent / "message_convert"

SUITES = [
    "mime-haraka/*.txt", "mime-mail-parser/*/*.eml", "mime-mikel-mail/*/*.eml",
    "mime-mikel-mail/sample_output_multipart", "mime-mime4j/*/*.msg", "unit-postfix/global/mime_*.in*",
    "bounces-sisimai/maildir/*/*.eml", "arf-mail-auth/*.eml",
]

# Where the decoder, not the conversion, reads otherwise than the RFC.
DEVIATIONS = {
    "mime-mail-parser/malformed/019.eml": "'Fro :' is a field by RFC 5322 section 4.5, which Python takes for text",
    "mime-mikel-mail/rfc2822/example13.eml": "'To    :' likewise",
    "testmsgs/multipartemptypart.msg": "Python takes an epilogue behind a part without any line for that part",
}


def messages():
    found = []
    for pattern in SUITES:
        found += sorted(glob.glob(str(SHARED / "conformance" / pattern)))
    return found


def on_the_wire(data):
    """As it would have come by SMTP, where a line ends with CRLF."""
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def decoded(message):
    """(type, content) of each part; structure shows in the order and the types."""
    parts, fields = [], set()
    for part in message.walk():
        if part.get_content_type() == "message/delivery-status":
            fields.update(id(block) for block in part.walk())  # these get encoded words: RFC 3464 section 2.1.1
        if id(part) in fields:
            continue
        content = None
        if not part.is_multipart():
            content = part.get_payload(decode=True)
        parts.append((part.get_content_type(), part.get_filename() and clean(part.get_filename()), content))
    return parts


def clean(text):
    """Names with bytes that are not UTF-8 have no one spelling: compare what is certain in them."""
    return "".join(c for c in text if c.isascii() and c.isalnum())


def header_text(message, name):
    value = message.get(name)
    if value is None:
        return None
    try:
        chunks = email.header.decode_header(str(value) if isinstance(value, str) else value)
    except Exception:
        return None
    text = b""
    for chunk, charset in chunks:
        text += chunk if isinstance(chunk, bytes) else chunk.encode("utf-8", "surrogateescape")
    return b"".join(text.split())


def convert(data):
    return subprocess.run([CONVERTER, "--convert"], input=data, stdout=subprocess.PIPE, timeout=60)


def with_eight_bits(data):
    """The same message with 8-bit letters wherever that can change neither its structure nor a part's encoding."""
    header, separator, body = data.partition(b"\r\n\r\n")
    encoded = b"base64" in header.lower() or b"quoted-printable" in header.lower()
    lines = body.split(b"\r\n")
    for i, line in enumerate(lines):
        if line.startswith(b"--"):
            encoded = False
        elif line.lower().startswith(b"content-transfer-encoding:"):
            encoded = b"7bit" not in line.lower() and b"8bit" not in line.lower()
        elif line and not encoded and not line.startswith((b" ", b"\t", b"From ")) and b":" not in line:
            lines[i] = line.replace(b"o", b"\xf8").replace(b"i", "\u00ef".encode())
    return header + separator + b"\r\n".join(lines)


def is_read_otherwise(name, message):
    """The decoder finds no parts in a multipart (a boundary with spaces and without quotes), where we find some."""
    return any(name.endswith(known) for known in DEVIATIONS) or any(
        part.get_content_maintype() == "multipart" and not part.is_multipart() for part in message.walk()
    )


def check_suites(prepare):
    counts = {"messages": 0, "converted": 0, "parts": 0, "deviating": 0, "impossible": 0}
    wrong = []
    for name in messages():
        data = prepare(on_the_wire(pathlib.Path(name).read_bytes()))
        done = convert(data)
        counts["messages"] += 1
        if done.returncode == 65:
            counts["impossible"] += 1
            continue
        assert done.returncode == 0, f"{name}: exit {done.returncode}"
        out = done.stdout
        if out == data and data.isascii():
            continue
        counts["converted"] += 1
        before, after = email.message_from_bytes(data), email.message_from_bytes(out)
        if not out.isascii():
            wrong.append(f"{name}: 8-bit bytes in the output")
        if max(map(len, out.split(b"\r\n"))) > 998 >= max(map(len, data.split(b"\r\n"))):
            wrong.append(f"{name}: a line over 998")
        if is_read_otherwise(name, before):
            counts["deviating"] += 1
            continue
        old, new = decoded(before), decoded(after)
        counts["parts"] += len(old)
        if old != new:
            first = next((a, b) for a, b in zip(old + [None], new + [None]) if a != b)
            wrong.append(f"{name}: {len(old)} parts, then {len(new)}:\n    {first[0]!r:.300}\n    {first[1]!r:.300}")
        if header_text(before, "Subject") != header_text(after, "Subject"):
            wrong.append(f"{name}: subject\n    {header_text(before, 'Subject')}\n    {header_text(after, 'Subject')}")
    summary = ", ".join(f"{count} {what}" for what, count in counts.items())
    print(f"# 8-bit to 7-bit: {summary}, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
    return counts


needs_suites = pytest.mark.skipif(not (SHARED / "conformance").is_dir(), reason="no shared conformance data")


@needs_suites
def test_as_they_are():
    counts = check_suites(lambda data: data)
    assert counts["messages"] > 500 and counts["converted"] > 40 and counts["impossible"] == 0


@needs_suites
def test_with_eight_bit_letters_in_every_part():
    counts = check_suites(with_eight_bits)
    assert counts["messages"] > 500 and counts["converted"] > 450
