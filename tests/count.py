"""Counts what passed and failed, as `N passed, N failed`: of meson's testlog.json (TAP inside) or of a JUnit file."""
import json
import sys
import xml.etree.ElementTree


def meson_tests(path):
    with open(path, encoding="utf-8") as log:
        return [json.loads(line) for line in log]


def count_meson(path):
    passed = failed = 0
    for test in meson_tests(path):
        lines = test.get("stdout", "").splitlines()
        passed += sum(line.startswith("ok ") and "# SKIP" not in line for line in lines)
        bad = sum(line.startswith("not ok ") for line in lines)
        if bad == 0 and test["result"] not in ("OK", "SKIP"):
            bad = 1  # it died
        failed += bad
    return passed, failed


def print_failures(path):
    for test in meson_tests(path):
        if test["result"] in ("OK", "SKIP"):
            continue
        print(f"# {test['name']}: {test['result']}")
        for line in test.get("stdout", "").splitlines():
            if line.startswith(("not ok", "#")):
                print(line)
        print("\n".join(test.get("stderr", "").splitlines()[:80]))


def count_junit(path):
    try:
        suites = list(xml.etree.ElementTree.parse(path).getroot().iter("testsuite"))
    except (OSError, xml.etree.ElementTree.ParseError):
        return 0, 1  # pytest itself died
    passed = failed = 0
    for suite in suites:
        total, skipped = int(suite.get("tests")), int(suite.get("skipped"))
        bad = int(suite.get("failures")) + int(suite.get("errors"))
        passed += total - skipped - bad
        failed += bad
    return passed, failed


def main():
    if sys.argv[1] == "--failures":
        print_failures(sys.argv[2])
        return
    passed, failed = count_junit(sys.argv[2]) if sys.argv[1] == "--junit" else count_meson(sys.argv[1])
    print(f"{passed} passed, {failed} failed")


main()
