"""From results to what is read: ratios with their spreads, the table of what was promised, plots. Nothing here runs anything.

A result is {"cell", "peer", "round", and figures by name}. A cell is a work at one scale: "accept/10240/s20/k0".
"""
import collections
import math
import statistics

OURS = "postrider"

# What a row asks for: `times` our figure over the peer's at least; `part` at most; `below` our figure alone, at most.
Row = collections.namedtuple("Row", "what cell figure kind must aim peer", defaults=["postfix"])
ROWS = [
    *(row for sessions in (20, 100, 400) for row in (
        Row(f"accept, {sessions} kept connections", f"accept/10240/s{sessions}/k0", "rate", "times", 8, 15),
        Row("  CPU", f"accept/10240/s{sessions}/k0", "cpu", "part", 1 / 10, 1 / 20))),
    Row("accept, one message per connection", "accept/10240/s20/k1", "rate", "times", 5, 8),
    Row("  CPU", "accept/10240/s20/k1", "cpu", "part", 1 / 8, None),
    Row("accept, one session", "accept/10240/s1/k0", "rate", "times", 3, 5),
    Row("accept 100 KiB, 20 sessions", "accept/102400/s20/k0", "rate", "times", 4, 7),
    Row("relay, one next hop, drained", "relay/one", "rate", "times", 8, 14),
    Row("  CPU", "relay/one", "cpu", "part", 1 / 10, None),
    Row("relay, 200 domains over 8 next hops", "relay/many", "rate", "times", 6, 10),
    Row("delivery into 1 Maildir", "maildir/1", "rate", "times", 3, 6),
    Row("delivery into 100 Maildirs", "maildir/100", "rate", "times", 3, 6),
    Row("saturated relay, end to end p99, ms", "relay/one", "way_p99", "below", 1000, 300),
    Row("new STARTTLS sessions", "tls/new", "rate", "times", 2, 2.7),
    Row("  CPU", "tls/new", "cpu", "part", 1 / 3, None),
    *(Row(f"messages on {sessions} kept TLS connections", f"tls/kept/s{sessions}", "rate", "times", 8, 14) for sessions in (20, 100)),
    Row("idle session, plain, KiB", "idle/plain", "kib", "below", 12, 6),
    Row("idle session, TLS, KiB", "idle/tls", "kib", "below", 45, 30),
    Row("final dot to 250 at light load, p50", "light/dot", "dot_p50", "part", 0.6, 0.4),
    Row("end to end, one message, p50", "light/way", "way_p50", "part", 0.6, 0.4),
    Row("accept with a long queue, of empty", "queue/full", "of_empty", "above", 0.9, None),
    Row("  listing a page, s", "queue/full", "page_s", "below", 0.2, None),
    Row("  restart to 220, s", "queue/full", "greeting_s", "below", 1, None),
    Row("  restart to first delivery, s", "queue/full", "delivery_s", "below", 2, None),
    Row("  memory, bytes a message", "queue/full", "bytes_each", "below", 400, None),
    Row("disk per queued 10 KiB message, KB", "disk/10240", "kb_each", "below", 11.5, 10.6),
    Row("accept, 100 kept connections", "accept/10240/s100/k0", "rate", "times", 3, None, "opensmtpd"),
    Row("relay, one next hop, drained", "relay/one", "rate", "times", 8, None, "haraka"),
    Row("relay, one next hop, drained", "relay/one", "rate", "times", 30, None, "exim"),
]


def together(clients):
    """Of clients that worked at the same time: what they did in all, and what the slowest of them met."""
    slowest = max(clients, key=lambda figures: figures["latency_ms"]["p99"])
    return {**slowest, **{name: sum(figures[name] for figures in clients) for name in ("rate", "tried", "accepted")}}


def of(results, cell, peer, figure):
    """{round: figure}"""
    return {r["round"]: r[figure] for r in results if r["cell"] == cell and r["peer"] == peer and r.get(figure) is not None}


def spread(values):
    """(median, least, greatest); None: there are none."""
    values = list(values)
    return (statistics.median(values), min(values), max(values)) if values else None


def ratio(results, cell, figure, peer):
    """Ours over the peer's, round by round: only what ran side by side is compared."""
    ours, theirs = of(results, cell, OURS, figure), of(results, cell, peer, figure)
    return spread(ours[n] / theirs[n] for n in ours if theirs.get(n))


def judge(row, value):
    """What a row's median is worth: "aim", "must", "MISSED" or, if it was not measured, "-"."""
    if value is None:
        return "-"
    reaches = (lambda bound: value >= bound) if row.kind in ("times", "above") else (lambda bound: value <= bound)
    if row.aim is not None and reaches(row.aim):
        return "aim"
    return "must" if reaches(row.must) else "MISSED"


def number(value):
    """As few digits as say it."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def shown(triple, unit=""):
    return "-" if triple is None else f"{number(triple[0])}{unit} ({number(triple[1])} to {number(triple[2])})"


def bound(row, value):
    if value is None:
        return ""
    sign = {"times": ">= ", "above": ">= ", "part": "<= ", "below": "<= "}[row.kind]
    return f"{sign}{number(value)}{' x' if row.kind in ('times', 'part') else ''}"


def columns(lines):
    """Lines of cells, in columns as wide as their widest."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def promises(results):
    """The table: each row of what was promised, the median of the rounds with their spread, and whether it holds."""
    lines = [["work (10 KiB unless said)", "ours", "peer", "its figure", "ratio, or ours", "must", "aim", "holds"]]
    for row in ROWS:
        alone = row.kind in ("below", "above")
        ours = spread(of(results, row.cell, OURS, row.figure).values())
        value = ours if alone else ratio(results, row.cell, row.figure, row.peer)
        theirs = spread(of(results, row.cell, row.peer, row.figure).values())
        lines.append([row.what, "-" if ours is None else number(ours[0]), row.peer, "-" if theirs is None else number(theirs[0]),
                      shown(value, "" if alone else " x"), bound(row, row.must), bound(row, row.aim),
                      judge(row, value[0] if value else None)])
    return columns(lines)


FIGURES = ["rate", "cpu", "p50", "p99", "way_p50", "way_p99", "peak_mib", "other"]


def everything(results):
    """Each cell and peer: medians, and the spread of the rate."""
    lines = [["cell", "peer", "rounds", "a second", "CPU s/1000", "p50 ms", "p99 ms", "way p50 ms", "way p99 ms", "peak MiB",
              "other cores"]]
    for cell in dict.fromkeys(r["cell"] for r in results):
        for peer in dict.fromkeys(r["peer"] for r in results if r["cell"] == cell):
            found = [spread(of(results, cell, peer, figure).values()) for figure in FIGURES]
            if not any(found):
                continue
            rounds = max(len(of(results, cell, peer, figure)) for figure in FIGURES)
            lines.append([cell, peer, str(rounds), shown(found[0]), *("-" if f is None else number(f[0]) for f in found[1:])])
    return columns(lines)


def durability(results):
    """How many system calls that sync each peer made for the messages it acknowledged."""
    lines = [["peer", "acknowledged", "syncs", "messages a sync", ""]]
    for r in results:
        if r["cell"] == "durability":
            lines.append([r["peer"], str(r["accepted"]), str(r["syncs"]), number(r["accepted"] / r["syncs"]) if r["syncs"] else "-",
                          "" if r["syncs"] else "DOES NOT SYNC"])
    return columns(lines) if len(lines) > 1 else ""


def series(results, cells, figure="rate"):
    """{peer: [(scale, median)]} for cells = {cell: scale}."""
    found = {}
    for cell, scale in cells.items():
        for peer in dict.fromkeys(r["peer"] for r in results if r["cell"] == cell):
            value = spread(of(results, cell, peer, figure).values())
            if value:
                found.setdefault(peer, []).append((scale, value[0]))
    return {peer: sorted(points) for peer, points in found.items()}


# ---- plots ---------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 400, 70, 120, 40, 50
COLOURS = {"postrider": "#c02020", "postfix": "#2050a0", "opensmtpd": "#208040", "exim": "#806010", "haraka": "#703090"}


def ticks(low, high):
    """1, 2, 5 times powers of ten, from below low to above high."""
    steps = [m * 10.0 ** e for e in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)]
    first = max(i for i, s in enumerate(steps) if s <= low * 1.000001)
    last = min(i for i, s in enumerate(steps) if s >= high / 1.000001)
    return steps[first:last + 1] if last > first else steps[first:first + 2]


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def svg(title, x_name, y_name, lines):
    """A plot of {name: [(x, y)]}, both axes logarithmic; values that are not above 0 are left out."""
    lines = {name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in lines.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    xs = sorted({x for points in lines.values() for x, _ in points})
    ys = ticks(min(y for points in lines.values() for _, y in points), max(y for points in lines.values() for _, y in points))
    x_low, x_high = math.log(xs[0]), math.log(xs[-1]) if xs[-1] > xs[0] else math.log(xs[0]) + 1
    y_low, y_high = math.log(ys[0]), math.log(ys[-1])

    def at_x(x):
        return LEFT + (math.log(x) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def at_y(y):
        return HEIGHT - BOTTOM - (math.log(y) - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
           f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_name)}</text>',
           f'<text x="16" y="{HEIGHT / 2:.0f}" text-anchor="middle" transform="rotate(-90 16 {HEIGHT / 2:.0f})">{escape(y_name)}</text>']
    for y in ys:
        out.append(f'<path d="M{LEFT} {at_y(y):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 6}" y="{at_y(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in xs:
        out.append(f'<text x="{at_x(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    labels = []
    for name, points in sorted(lines.items(), key=lambda item: at_y(item[1][-1][1])):
        colour = COLOURS.get(name, "#444")
        way = "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in points)
        out.append(f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{colour}"/>' for x, y in points]
        labels.append(max(at_y(points[-1][1]) + 4, labels[-1] + 14 if labels else 0))
        out.append(f'<text x="{WIDTH - RIGHT + 8}" y="{labels[-1]:.1f}" fill="{colour}">{escape(name)}</text>')
    return "\n".join(out) + "\n</svg>\n"
