"""postrider tlsrpt: reports as files, on standard input and in mails; what a script sees; that a terminal is safe from them."""
import gzip
import json
import os
import pathlib
import subprocess

import pytest


SOURCE = pathlib.Path(os.environ.get("POSTRIDER_SOURCE", pathlib.Path(__file__).resolve().parent.parent))
SHARED = pathlib.Path(os.environ.get("POSTRIDER_SHARED", SOURCE.parent / "shared")) / "conformance" / "tlsrpt-mail-auth"
POSTRIDER = os.environ.get("POSTRIDER_SANITIZED", SOURCE / "build" / "postrider")


def tlsrpt(*words, stdin=b""):
    return subprocess.run([POSTRIDER, "tlsrpt", *words], input=stdin, capture_output=True, timeout=120, check=False)


def report(domain="a.example", succeeded=1, failed=0, details=(), organization="B"):
    return json.dumps({
        "organization-name": organization,
        "date-range": {"start-datetime": "2026-11-27T00:00:00Z", "end-datetime": "2026-11-27T23:59:59Z"},
        "policies": [{
            "policy": {"policy-type": "tlsa", "policy-domain": domain},
            "summary": {"total-successful-session-count": succeeded, "total-failure-session-count": failed},
            "failure-details": list(details),
        }],
    }).encode()


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/conformance/tlsrpt-mail-auth is not there")
def test_the_suite_reads_the_same_from_a_mail_and_from_a_file():
    files = sorted(path for path in SHARED.iterdir() if path.suffix in (".eml", ".json"))
    read = {path.name: tlsrpt("--json", path) for path in files}
    assert {name: run.returncode for name, run in read.items()} == {"rpt01.eml": 1, "rpt01.json": 1, "rpt03.json": 0}
    assert all(run.stderr == b"" and run.stdout.count(b"\n") == 1 for run in read.values())
    mail, alone = json.loads(read["rpt01.eml"].stdout), json.loads(read["rpt01.json"].stdout)
    assert (mail.pop("file"), alone.pop("file")) == (str(SHARED / "rpt01.eml"), str(SHARED / "rpt01.json"))
    assert mail == alone and alone["version"] == 1
    assert [f["sessions"] for p in alone["policies"] for f in p["failures"]] == [100, 200, 3]
    said = tlsrpt(*files).stdout.decode()
    assert "company-y.example, MTA-STS testing; sessions: 5326 succeeded, 303 failed" in said
    assert "certificate-expired: the certificate has expired\n" in said and "policy of unknown type invalid-policy-type" in said
    assert said.endswith("\n3 reports; sessions: 10654 succeeded, 606 failed\n")
    print(f"tlsrpt-mail-auth: {len(files)} of {len(files)} files read")


def test_files_that_are_none_do_not_hide_the_others(tmp_path):
    good, broken = tmp_path / "good", tmp_path / "broken"
    good.write_bytes(gzip.compress(report()))
    broken.write_bytes(b'{"policies": [')
    run = tlsrpt(broken, tmp_path / "none", good)
    assert run.returncode == 65 and b"a.example, DANE; sessions: 1 succeeded, 0 failed" in run.stdout
    first, second = run.stderr.decode().splitlines()
    assert first.startswith(f"postrider tlsrpt: {broken}: its JSON is broken at line 1, column 14: ") and "ENOENT" in second
    assert tlsrpt(tmp_path / "none").returncode == 66 and tlsrpt(good).returncode == 0 and tlsrpt("--nonsense").returncode == 64


def test_only_failures(tmp_path):
    (tmp_path / "1").write_bytes(report())
    detail = {"result-type": "tlsa-invalid", "receiving-mx-hostname": "mx.b.example", "failed-session-count": 4}
    run = tlsrpt("--failures", tmp_path / "1", "-", stdin=report("b.example", 3, 4, [detail]))
    assert run.returncode == 1 and b"a.example" not in run.stdout
    assert b"  in standard input\n  b.example, DANE; sessions: 3 succeeded, 4 failed\n         4  tlsa-invalid: " in run.stdout
    assert run.stdout.endswith(b"\n2 reports; sessions: 4 succeeded, 4 failed\n")


def test_a_terminal_is_not_steered():
    nasty = "\x1b]0;x\x07 \x9b2J\r\nB\x7f"
    details = [{"result-type": nasty, "receiving-ip": nasty, "additional-information": nasty, "failed-session-count": 1}]
    run = tlsrpt(stdin=report(nasty, 1, 1, details, nasty))
    said = run.stdout.decode()
    assert run.returncode == 1 and said.count("B?") == 5
    assert not any(c < " " and c != "\n" or "\x7f" <= c < "\xa0" for c in said)
    assert json.loads(tlsrpt("--json", stdin=report(organization=nasty)).stdout)["organization"] == nasty
    assert b"\x1b" not in tlsrpt(stdin=b'{"\x1b[2J').stderr


def test_bombs():
    assert b"it unpacks to more than 32 MiB" in tlsrpt(stdin=gzip.compress(bytes(1 << 28))).stderr
    assert b"nests deeper" in tlsrpt(stdin=b"[" * 1000000).stderr
    assert b"values" in tlsrpt(stdin=b"[" + b"{}," * 600000).stderr


def test_many_details_are_all_shown():
    details = [{"result-type": "validation-failure", "receiving-mx-hostname": f"mx{i}.example", "failed-session-count": 1,
                "additional-information": "\x1b" * 2000} for i in range(500)]
    for words in ([], ["--json"]):
        run = tlsrpt(*words, stdin=gzip.compress(report("a.example", 0, 500, details)))
        assert run.returncode == 1 and all(f"mx{i}.example".encode() in run.stdout for i in range(500))
    assert len(json.loads(run.stdout)["policies"][0]["failures"]) == 500
