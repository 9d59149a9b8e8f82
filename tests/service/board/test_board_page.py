"""The page on the scheduler's HTTP server, fed by a run through Dask's event log."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from html.parser import HTMLParser

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bgmatch_dask.errors import Rejected
from bgmatch_dask.pipeline.engine import DaskEngine, SerialEngine
from bgmatch_dask.pipeline.events import (
    TOPIC,
    Picture,
    RunStarted,
    StageStarted,
    UnitDone,
    UnitStarted,
    to_message,
)
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.service.board import board_from_json, board_schema
from bgmatch_dask.service.board.feed import BoardFeed, board_path
from bgmatch_dask.service.board.metrics import metrics_text
from bgmatch_dask.service.board.plugin import BoardPlugin, board_link, install_board
from bgmatch_dask.service.board.render import LiveWorker, render_board, render_pictures
from tests.conftest import make_job

EVIL = "\"><img src=x onerror=alert(1)><script>alert(2)</script>'&"


def get(link, path=""):
    with urllib.request.urlopen(link.split("?")[0] + path, timeout=60) as answer:
        return answer.read().decode(), answer.headers


class Elements(HTMLParser):
    """Collects the elements of a page and fails at what does not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"img", "meta", "link", "path", "rect"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag != "path":
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def watched_run(cluster, simulated, tmp_path_factory):
    """The feed of a run that the cluster has carried out, with one input that is no FITS file."""
    folder = tmp_path_factory.mktemp("watched")
    warps = folder / "warps"
    warps.mkdir()
    for path in sorted((simulated / "warps").iterdir()):
        (warps / path.name).symlink_to(path)
    (warps / "<img src=x onerror=alert(1)>.fits").write_bytes(b"no FITS file")
    plan = make_plan(make_job(warps, folder / "t.zarr"))
    with BoardFeed(plan, cluster) as feed:
        run_tract(plan, DaskEngine(cluster), [feed])
    return feed, plan, board_link(cluster, feed.key)


def test_the_page_tells_of_a_finished_run(watched_run):
    feed, plan, link = watched_run
    data = json.loads(get(link, "board.json?board=" + feed.key)[0])
    jsonschema.validate(data, board_schema())
    board = board_from_json(data)
    assert board.outcome == "finished"
    assert [s.name for s in board.stages][:2] == ["ingest", "reference"]
    assert all(s.ended is not None and s.done == s.total for s in board.stages)
    assert set(board.cells) <= {"c", "."}
    assert board.cells.count("c") == len(plan.ingest)
    assert {p.name for p in board.pictures} > {"mosaic-before", "mosaic-after"}
    scale, *offsets = [p.name for p in board.pictures if p.kind == "offset"]
    assert (scale, len(offsets)) == ("offset-scale", len(board.visits) - 1)
    assert len(board.workers) == 2
    assert sum(w.units for w in board.workers) == sum(s.total for s in board.stages if s.n_bytes)
    assert all(w.peak_bytes > 1e7 and w.memory_limit > 1e7 for w in board.workers)
    assert [r.code for r in board.rejected] == ["fits-unreadable"]


def test_the_store_holds_the_same_board(watched_run):
    feed, plan, link = watched_run
    stored = board_from_json(plan.location.read_json(board_path("main")))
    assert stored == feed.board
    served = board_from_json(json.loads(get(link, "board.json?board=" + feed.key)[0]))
    assert (served.cells, served.rejected, served.pictures) == (
        stored.cells,
        stored.rejected,
        stored.pictures,
    )


def test_every_route_answers_and_lets_nothing_else_run(watched_run):
    _, _, link = watched_run
    for path in ("", "board.css", "board.js", "boards.json", "fragment.html", "health", "metrics"):
        text, headers = get(link, path)
        assert text
        assert headers["Content-Security-Policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert json.loads(get(link, "health")[0])["status"] == "ok"
    page, _, board = link.partition("?")
    with urllib.request.urlopen(f"{page}picture?name=mosaic-after&{board}") as answer:
        assert answer.read()[:4] == b"\x89PNG"
    for path in ("board.json?board=none", "picture?name=none", "fragment.html?board=%3Cb%3E"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(link, path)


def test_the_drawn_board_escapes_what_comes_from_inputs(watched_run):
    _, _, link = watched_run
    page = Elements(get(link, f"fragment.html?{link.partition('?')[2]}")[0])
    assert not [tag for tag, _ in page.tags if tag in {"img", "script"}]
    assert any("<img src=x onerror=alert(1)>.fits" in text for text in page.text)


def evil_board():
    bad = Rejected(EVIL, EVIL, EVIL)
    plugin = BoardPlugin()
    events = [
        RunStarted(EVIL, EVIL, EVIL, EVIL, EVIL, (EVIL, "ok"), 2, 1, "1111", (bad,)),
        StageStarted(EVIL, 4, 0),
        UnitStarted("ingest", f"{EVIL}/0", EVIL),
        UnitDone("ingest", f"{EVIL}/1", 1.0, (bad,), worker=EVIL),
        Picture("offset-0", "offset", EVIL, b"png"),
        Picture("mosaic-after", "after", EVIL, b"png"),
    ]
    plugin.take({"board": EVIL, "events": [{"at": 1.0, **to_message(e)} for e in events]})
    return plugin.runs[EVIL].board


def test_hostile_labels_stay_text_everywhere():
    board = evil_board()
    html = render_board(board, 2.0, {EVIL: LiveWorker(1, 2, 3)})
    html += render_pictures(board, lambda picture: "x?" + EVIL + picture.name)
    page = Elements(html)
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 2
    assert not [attrs for _, attrs in page.tags if "onerror" in attrs]
    families = list(text_string_to_metric_families(metrics_text([board])))
    stages = [s.labels["stage"] for f in families for s in f.samples if "stage" in s.labels]
    assert set(stages) == {EVIL}


def test_metrics_are_those_of_the_run(watched_run):
    feed, _, link = watched_run
    text = get(link, "metrics")[0]
    samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
    mine = [s for s in samples if s.labels["board"] == feed.key]
    done = {s.labels["stage"]: s.value for s in mine if s.name == "bgmatch_units_done"}
    assert done == {s.name: s.done for s in feed.board.stages}
    moved = {s.labels["stage"]: s.value for s in mine if s.name == "bgmatch_bytes"}
    assert moved["ingest"] > 1e6
    assert {s.name for s in mine} >= {"bgmatch_stage_seconds", "bgmatch_inputs_rejected"}


def test_nonsense_under_our_topic_harms_nothing(cluster, watched_run):
    feed, _, link = watched_run
    for message in ("text", {"board": "x"}, {"board": 1, "events": [{"event": "UnitDone"}]}):
        cluster.log_event(TOPIC, message)
    install_board(cluster)
    assert json.loads(get(link, "board.json?board=" + feed.key)[0])["outcome"] == "finished"


class Stopping(SerialEngine):
    """Stops at the differences with an error or a signal."""

    def __init__(self, error):
        self.error = error

    def map(self, function, tasks, name):
        if name == "difference":
            raise self.error
        return super().map(function, tasks, name)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(RuntimeError("the disk is gone"), "failed"), (KeyboardInterrupt(), "interrupted")],
)
def test_a_run_that_stops_says_why_on_its_board(simulated, tmp_path, error, outcome):
    plan = make_plan(make_job(simulated / "warps", tmp_path / "t.zarr"))
    with pytest.raises(type(error)), BoardFeed(plan) as feed:
        run_tract(plan, Stopping(error), [feed])
    assert (feed.board.outcome, feed.board.cells.strip("i.")) == (outcome, "")
    assert str(error) in feed.board.text
    assert board_from_json(plan.location.read_json(board_path("main"))) == feed.board


def test_the_scheduler_forgets_old_runs():
    plugin = BoardPlugin()
    for index in range(30):
        plugin.take({"board": f"run-{index}", "events": []})
    assert len(plugin.runs) == 20
    assert "run-29" in plugin.runs
