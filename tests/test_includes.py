"""Who includes whom: a folder of src/ may include only from those that its line names (ARCHITECTURE.md)."""
import pathlib
import re

SOURCE = pathlib.Path(__file__).resolve().parent.parent / "src"

MAY_INCLUDE = {
    "base": "",
    "runtime": "",
    "link": "",
    "net": "link",
    "dns": "link",
    "message": "",
    "sasl": "net message",
    "smtp": "net message sasl",
    "spool": "message",
    "policy": "net dns message smtp",
    "deliver": "net dns message sasl smtp",
    "queue": "message spool dns deliver policy",
    "role": None,  # all
    "cli": None,
}
ALWAYS = {"base", "runtime"}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
# Headers of the operating system, which only runtime/ may know.
SYSTEM = re.compile(
    r"^\s*#\s*include\s+<(sys/|unistd|fcntl|signal|pthread|errno|time|netdb|poll|spawn)", re.MULTILINE
)
SYSTEM_ALLOWED = {
    "base/check.c": "writes its last words and aborts",
    "base/err.c": "names errno values",
    "base/test.c": "maps the page that a parser must not touch",
    "role/supervisor.c": "names signals",
    "role/role.c": "names signals",
    "cli/load.c": "names signals",
    "cli/sink.c": "names signals",
    "dns/resolver.c": "libunbound takes a struct timeval",
    "net/tls_measure.c": "a measuring program: has clocks and processes of its own",
    "spool/spool_fill.c": "a test program: makes directories for tests",
    "spool/spool_fixture.h": "of tests: makes and damages directories",
}


def includes():
    for path in sorted(SOURCE.rglob("*.[ch]")):
        yield path.relative_to(SOURCE).as_posix(), path.read_text(encoding="utf-8")


def test_folders_include_only_what_stands_above_them():
    wrong = []
    for name, text in includes():
        folder = name.split("/")[0]
        if MAY_INCLUDE.get(folder) is None:
            continue
        allowed = {"base"} if folder == "base" else ALWAYS | {folder} | set(MAY_INCLUDE[folder].split())
        wrong += [f"{name} includes {i}" for i in INCLUDE.findall(text) if i.split("/")[0] not in allowed]
    assert not wrong, "\n".join(wrong)


def test_every_folder_is_in_the_table():
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    assert folders <= set(MAY_INCLUDE), folders - set(MAY_INCLUDE)


def test_only_runtime_knows_the_operating_system():
    wrong = [
        name
        for name, text in includes()
        if SYSTEM.search(text)
        and not name.startswith("runtime/")
        and not name.endswith("_test.c")
        and name not in SYSTEM_ALLOWED
    ]
    assert not wrong, "\n".join(wrong)


def test_includes_name_their_folder_and_headers_have_guards():
    wrong = []
    for name, text in includes():
        wrong += [f"{name} includes {i} without its folder" for i in INCLUDE.findall(text) if "/" not in i]
        guard = re.sub(r"[^A-Z0-9]", "_", name.upper())
        if name.endswith(".h") and f"#ifndef {guard}\n#define {guard}\n" not in text:
            wrong.append(f"{name} has no guard {guard}")
    assert not wrong, "\n".join(wrong)
