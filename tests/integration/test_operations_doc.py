"""docs/OPERATIONS.md names what there is: metrics, options, commands and the lines of the log."""
import re
import stat

from harness import ROOT

DOC = (ROOT / "docs/OPERATIONS.md").read_text()
# Commands that another part of the work brings; `belfryctl help` lists them once they are there.
OPTIONAL_COMMANDS = {"backup", "restore"}


def section(title):
    return DOC.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(title):
    rows = [line for line in section(title).splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def test_metrics_exist(embedded):
    text = embedded.admin("GET", "/metrics").body.decode()
    known = set(re.findall(r"^# TYPE (\w+) ", text, re.M))
    named = set(re.findall(r"`(belfry_\w+)[`{]", DOC))
    assert len(named) > 20 and named <= known, named - known


def test_options_exist():
    options = set(re.findall(r'^X\(\w+, "([\w.]+)"', (ROOT / "include/belfry/conf/options.def").read_text(), re.M))
    options |= {"websocket.jwt_keys", "tls.certificates", "push.apps"}
    sections = {name.split(".")[0] for name in options}
    named = {name for name in re.findall(r"`([a-z]+\.[a-z_.]+)(?:[`:]|\b)", DOC) if name.split(".")[0] in sections}
    named -= {name for name in named if name.endswith((".yaml", ".key", ".token", ".md")) or name + "*" in DOC}
    assert len(named) > 10 and named <= options, named - options


def test_commands_exist(embedded):
    known = set(re.findall(r"^  (\w+) ", embedded.ctl("help").stdout, re.M))
    named = set(re.findall(r"belfryctl (?:--config FILE )?([a-z]+)", DOC)) - {"reads", "calls", "with", "from"}
    assert {"status", "key", "drain"} <= named and named - OPTIONAL_COMMANDS <= known, named - known


def test_lines_of_the_log_are_those_of_the_source():
    source = ""
    for top in ("ctrlplane", "dataplane", "include"):
        for path in sorted((ROOT / top).rglob("*.[ch]")):
            source += re.sub(r'"\s*\\?\n\s*"', "", path.read_text())
    source = re.sub(r'"\s+"', "", source)
    lines = first_cells("What it says, and what to do")
    assert len(lines) > 18
    missing = [line for line in lines if line not in source]
    assert not missing


def test_files_have_these_modes(embedded):
    places = {"STATE": embedded.state / "data", "RUN": embedded.state / "run"}
    seen = 0
    for row in section("Files").splitlines():
        match = re.match(r"\| (`.*`) \| (0\d+) \|", row)
        for name in re.findall(r"`(\w+)/([\w.]+)`", match.group(1)) if match else []:
            path = places[name[0]] / name[1]
            if path.exists():
                seen += 1
                assert stat.S_IMODE(path.stat().st_mode) == int(match.group(2), 8), path
    assert seen >= 6
