"""perf/report draws a directory of results: one self-contained page, every figure from the results, faults named."""
import html.parser
import json
import os
import pathlib
import re
import subprocess

import pytest

import harness

REPORT = harness.ROOT / "perf/report"
CONDITIONS = {"machine": "Sample & Co CPU", "cores": 2, "memory_mb": 4096, "kernel": "Linux 6.18", "rps": "0",
              "congestion": "bbr", "load_at_start": "0.1 0.1 0.1", "revision": "abc1234"}


def bar(value, unit, limit, ok, **more):
    return {"value": value, "unit": unit, "bar": limit, "ok": ok, **more}


SAMPLES = {
    "ws-broadcast": {"N": 18000, "payload": 64, "raw_frames_per_s": [100000, 110000, 105000],
                     "belfry_frames_per_s": [101000, 104000, 99000], "gorilla_frames_per_s": [60000, 61000, 62000],
                     "bars": {"P5": bar(0.97, "ratio", 0.95, True), "P6": bar(1.2, "ratio", 1.05, False),
                              "P20-heap": bar(0, "allocations/frame", 0, True)}},
    "ws-priority": {"N": 200000, "idle_p50_us": 70, "idle_p99_us": 200, "critical_p50_us": 600, "critical_p99_us": 1500,
                    "critical_quantiles_us": [[0.5, 600], [0.9, 1200], [0.99, 1500]],
                    "bars": {"P8": bar(1.5, "ms", 2, True)}},
    "ws-idle": {"N": 200000, "bars": {"P1": bar(242.5, "bytes", 256, True),
                                      "P3": bar(None, "MB", 1300, None, why="needs --minutes <10>")}},
    "push-connections": {"N": 2000, "user_bytes_each": 39640.5, "held": True, "bars": {}},
    "storm": {"N": 200000, "storm_lost": 0, "storm_ok": True, "drain_all_back_s": 8.5, "bars": {}},
}


class Checker(html.parser.HTMLParser):
    """Balanced tags, and nothing that would be fetched."""
    VOID = {"meta", "br", "img", "input", "link"}
    # SVG shapes are written self-closing
    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert tag not in ("script", "link", "img", "iframe", "object"), tag
        for name, value in attrs:
            assert not name.startswith("on") and name not in ("src", "href"), (tag, name, value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def results(tmp_path):
    for name, values in SAMPLES.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"benchmark": name, **CONDITIONS, **values}) + "\n")
    return tmp_path


def draw(directory, *args, code=0):
    out = directory / "page" / "report.html"
    done = subprocess.run([str(REPORT), "--from", str(directory), "--out", str(out), *args], capture_output=True, text=True,
                          env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"))
    assert done.returncode == code, done.stderr
    if code:
        return done.stderr
    assert done.stdout.strip() == str(out)
    checker = Checker()
    page = out.read_text()
    checker.feed(page)
    assert not checker.open, checker.open
    assert "http://" not in page and "https://" not in page and "@import" not in page and "url(" not in page
    return page, " ".join(checker.text), checker.tags


def test_draws_figures_bars_peers_and_latency(results):
    page, text, tags = draw(results)
    assert tags.count("svg") == 5, "bars, broadcast, memory, latency by percentile, latency curves"
    for words in ("0.97 ratio", "1.2 ratio", "1.5 ms", "242", "gorilla/websocket", "raw io_uring sends", "105,000",
                  "missed", "met", "not measured", "HTTP/2 to a provider", "39,640", "needs --minutes <10>", "Sample & Co CPU", "abc1234", "storm lost"):
        assert words in text, words
    assert "prefers-color-scheme:dark" in page
    tiles = re.findall(r"<b>(\d+)</b><span>([a-z ]+)", page)
    assert dict((name, int(n)) for n, name in tiles) == {"bars met": 4, "bars missed": 1, "not measured": 1, "runs": 5}


def test_every_figure_is_in_the_results(results):
    """A changed result changes the page: nothing is written by hand."""
    before = draw(results)[1]
    values = json.loads((results / "ws-priority.json").read_text())
    values["bars"]["P8"] = bar(7.25, "ms", 2, False)
    (results / "ws-priority.json").write_text(json.dumps(values))
    after = draw(results)[1]
    assert "7.25 ms" in after and "7.25 ms" not in before and "1.5 ms" in before


def test_a_later_measurement_replaces_a_bar_not_measured(results):
    values = {"benchmark": "ws-idle", **CONDITIONS, "N": 200000, "bars": {"P3": bar(1267, "MB", 1300, True)}}
    (results / "ws-idle-long.json").write_text(json.dumps(values))
    text = draw(results)[1]
    assert "1,267 MB" in text and "needs --minutes" not in text


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"benchmark":"x"}', '{"bars":{}}', '{"benchmark":"x","bars":3}'])
def test_broken_results_are_named(results, content):
    (results / "broken.json").write_text(content)
    text = draw(results)[1]
    assert "broken.json" in text and "0.97 ratio" in text


def test_nothing_to_draw(tmp_path):
    assert "no results" in draw(tmp_path, code=1)
    assert "no directory" in draw(tmp_path / "absent", code=1)


def test_markup_in_results_stays_text(results):
    path = results / "storm.json"
    values = json.loads(path.read_text())
    values["machine"] = "<script>alert(1)</script>"
    path.write_text(json.dumps(values))
    page, text, _ = draw(results)
    assert "<script" not in page and "alert(1)" in text


def test_unknown_benchmark():
    done = subprocess.run([str(REPORT), "--only", "nonesuch"], capture_output=True, text=True)
    assert done.returncode == 1 and "nonesuch" in done.stderr
    assert not pathlib.Path("nonesuch").exists()
