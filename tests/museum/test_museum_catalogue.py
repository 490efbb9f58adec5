"""The museum's catalogue: each row of a table has its exhibit, each exhibit its row, and there are sixty at least."""
import ast
import pathlib
import re

FOLDER = pathlib.Path(__file__).resolve().parent
ADVISORY = re.compile(r"CVE-\d{4}-\d{4,}|VU#\d+|Guninski|21Nails|audit|RFC \d+|USENIX|PortSwigger|MBSD|Bugtraq|CERT")


def test_table_and_exhibits_agree():
    rows, exhibits = {}, set()
    for path in sorted(FOLDER.glob("test_museum_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for line in (ast.get_docstring(tree) or "").splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) == 4 and re.fullmatch(r"[A-Z]\d\d", cells[0]):
                assert cells[0] not in rows, f"{cells[0]} twice"
                rows[cells[0]] = cells
        exhibits |= {found[1].upper() for node in tree.body if isinstance(node, ast.FunctionDef)
                     if (found := re.match(r"test_([a-z]\d\d)_", node.name))}
    assert set(rows) == exhibits
    for name, advisory, idea, outcome in rows.values():
        assert ADVISORY.search(advisory), f"{name} names no advisory: {advisory}"
        assert idea and outcome, name
    print(f"# museum: {len(rows)} exhibits")
    assert len(rows) >= 60
