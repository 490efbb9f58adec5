"""bench/figures.py: ratios, the table, plots. That the works run is not tested here: they take minutes, and their figures no
machine that does something else can tell."""
import pathlib
import sys
import xml.etree.ElementTree

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bench"))
import figures  # noqa: E402  pylint: disable=wrong-import-position


def result(cell, peer, number, **found):
    return {"cell": cell, "peer": peer, "round": number, **found}


def test_ratios_compare_what_ran_in_the_same_round():
    results = [result("c", "postrider", 1, rate=100), result("c", "postfix", 1, rate=50),
               result("c", "postrider", 2, rate=300), result("c", "postfix", 2, rate=30),
               result("c", "postrider", 3, rate=900), result("c", "postfix", 4, rate=1),
               result("d", "postfix", 3, rate=1)]
    assert figures.ratio(results, "c", "rate", "postfix") == (6, 2, 10)
    assert figures.ratio(results, "c", "rate", "exim") is None
    assert figures.ratio(results, "c", "cpu", "postfix") is None


def test_clients_together_did_what_each_did():
    one = {"rate": 100.5, "tried": 10, "accepted": 9, "latency_ms": {"p50": 3, "p99": 4}}
    other = {"rate": 200.0, "tried": 20, "accepted": 20, "latency_ms": {"p50": 2, "p99": 5}}
    assert figures.together([one]) == one
    assert figures.together([one, other]) == {"rate": 300.5, "tried": 30, "accepted": 29, "latency_ms": {"p50": 2, "p99": 5}}


def test_a_peer_that_did_nothing_gives_no_ratio():
    results = [result("c", "postrider", 1, rate=100), result("c", "postfix", 1, rate=0)]
    assert figures.ratio(results, "c", "rate", "postfix") is None


@pytest.mark.parametrize("kind,value,verdict", [
    ("times", 16, "aim"), ("times", 15, "aim"), ("times", 8, "must"), ("times", 7.9, "MISSED"), ("times", None, "-"),
    ("part", 16, "MISSED"), ("part", 8, "must"), ("below", 4, "aim"), ("above", 7, "MISSED"),
])
def test_judges(kind, value, verdict):
    must, aim = (8, 15) if kind in ("times", "above") else (8, 5)
    assert figures.judge(figures.Row("w", "c", "rate", kind, must, aim), value) == verdict


@pytest.mark.parametrize("value,text", [(0, "0"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.0123, "0.0123"),
                                        (99.99, "100.0"), (1e6, "1000000")])
def test_numbers(value, text):
    assert figures.number(value) == text


def test_the_table_has_every_promise_and_says_what_was_not_measured():
    results = [result(row.cell, peer, n, **{row.figure: 10.0 * n if peer == "postrider" else 1.0 * n})
               for row in figures.ROWS if row.cell != "idle/tls" for peer in ("postrider", row.peer) for n in (1, 2, 3)]
    merged = {}
    for r in results:
        merged.setdefault((r["cell"], r["peer"], r["round"]), {}).update(r)
    lines = figures.promises(list(merged.values())).splitlines()
    assert len(lines) == 1 + len(figures.ROWS)
    row = next(line for line in lines if line.startswith("accept, 20 kept"))
    assert row.split() == ("accept, 20 kept connections 20.0 postfix 2.00 10.0 x (10.0 to 10.0) >= 8.00 x >= 15.0 x must").split()
    assert next(line for line in lines if line.startswith("idle session, TLS")).split()[-1] == "-"


def test_a_peer_that_does_not_sync_is_marked():
    text = figures.durability([result("durability", "postfix", 1, accepted=100, syncs=100),
                               result("durability", "opensmtpd", 1, accepted=100, syncs=0)])
    assert "DOES NOT SYNC" not in text.splitlines()[1] and "DOES NOT SYNC" in text.splitlines()[2]


def test_everything_lists_medians():
    text = figures.everything([result("c", "postfix", n, rate=n, cpu=2.0) for n in (1, 2, 9)] + [result("d", "exim", 1)])
    assert text.splitlines()[1].split() == ["c", "postfix", "3", "2.00", "(1.00", "to", "9.00)", "2.00"] + ["-"] * 6
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize("low,high,first,last", [(1, 1, 1, 2), (3, 900, 2, 1000), (0.04, 0.3, 0.02, 0.5), (1000, 1000, 1000, 2000)])
def test_ticks_enclose(low, high, first, last):
    steps = figures.ticks(low, high)
    assert steps[0] == pytest.approx(first) and steps[-1] == pytest.approx(last) and steps == sorted(steps)


def test_plots_are_svg_with_every_line():
    results = [result(f"s{n}", peer, 1, rate=rate) for n in (1, 20, 400) for peer, rate in (("postrider", 9000 + n), ("a<b", 7.5))]
    lines = figures.series(results, {"s1": 1, "s20": 20, "s400": 400})
    assert lines["postrider"] == [(1, 9001), (20, 9020), (400, 9400)]
    root = xml.etree.ElementTree.fromstring(figures.svg("t & u", "sessions", "messages/s", lines))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}circle")) == 6
    texts = [text.text for text in root.findall(f"{space}text")]
    assert "t & u" in texts and "a<b" in texts
    for circle in root.findall(f"{space}circle"):
        assert figures.LEFT - 1 <= float(circle.get("cx")) <= figures.WIDTH - figures.RIGHT + 1
        assert figures.TOP - 1 <= float(circle.get("cy")) <= figures.HEIGHT - figures.BOTTOM + 1


def test_a_plot_of_nothing_is_nothing_and_one_point_is_enough():
    assert figures.svg("t", "x", "y", {"postfix": [(1, 0)]}) == ""
    assert "circle" in figures.svg("t", "x", "y", {"postfix": [(5, 5)]})
