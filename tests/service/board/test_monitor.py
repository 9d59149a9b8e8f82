"""The board in Jupyter: a notebook that starts a job and watches it, and what nbconvert keeps."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import nbformat
import pytest
from distributed import Client

import bgmatch_dask
from bgmatch_dask.errors import BgmatchError, ConfigError
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.service.board.feed import BoardFeed, board_path
from bgmatch_dask.service.board.sources import PageSource, source_of
from tests.conftest import make_job
from tests.service.board.browser import browser

NOTEBOOK = Path(__file__).parents[3] / "deploy/jupyter/monitor.ipynb"


@pytest.fixture(scope="module")
def finished(simulated, tmp_path_factory):
    """A store with a run that was watched."""
    plan = make_plan(make_job(simulated / "warps", tmp_path_factory.mktemp("m") / "t.zarr"))
    with BoardFeed(plan) as feed:
        run_tract(plan, listeners=[feed])
    return plan.location, feed.board


def test_a_finished_run_is_shown_from_its_store(finished):
    location, board = finished
    watcher = bgmatch_dask.monitor(str(location.local_path))
    assert watcher.wait(timeout=60) == board
    html = watcher._repr_html_()
    assert 'data-outcome="finished"' in html
    assert html.count("data:image/png;base64,") == len(board.pictures)
    assert "<script" not in html
    assert "finished" in repr(watcher)


def test_a_run_that_nobody_watched_is_shown_from_its_receipts(finished):
    location, board = finished
    stored = location.read_bytes(board_path("main"))
    location.delete(board_path("main"))
    try:
        shown = bgmatch_dask.monitor(location.url).board
        html = bgmatch_dask.monitor(location.url)._repr_html_()
    finally:
        location.write_bytes(board_path("main"), stored)
    assert (shown.outcome, shown.cells, shown.visits) == ("finished", board.cells, board.visits)
    assert [s.name for s in shown.stages] == [s.name for s in board.stages]
    assert {p.name: p.version for p in shown.pictures} == {
        p.name: p.version for p in board.pictures
    }
    assert "data:image/png" in html


def test_a_job_is_watched_by_its_identifier(finished, simulated, tmp_path, monkeypatch):
    from bgmatch_dask.service.jobs.files import JobFiles
    from bgmatch_dask.service.jobs.find import remember
    from bgmatch_dask.service.jobs.record import new_record

    location, board = finished
    monkeypatch.setenv("BGMATCH_STATE", str(tmp_path))
    config = make_job(simulated / "warps", location.local_path)
    record = new_record([config])
    JobFiles(record.runs[0]).write_record(record)
    remember(record, config.cluster)
    assert bgmatch_dask.monitor(record.id).board == board


def test_a_run_that_does_not_yet_exist_is_waited_for(tmp_path):
    watcher = bgmatch_dask.monitor(str(tmp_path / "later.zarr"), every=0.01)
    assert watcher.board.outcome == "waiting"
    assert "nothing has been heard" in watcher._repr_html_()
    with pytest.raises(TimeoutError, match="not over"):
        watcher.wait(timeout=0.05)
    assert not (tmp_path / "later.zarr").exists()


def test_what_cannot_be_watched_is_refused():
    with pytest.raises(ConfigError, match="watch-target"):
        bgmatch_dask.monitor(3)
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    port = server.server_port
    server.server_close()
    source = source_of(f"http://127.0.0.1:{port}/status")
    with pytest.raises(BgmatchError, match="board-unreachable"):
        source.board()
    assert "board-unreachable" in bgmatch_dask.monitor(f"http://127.0.0.1:{port}/")._repr_html_()


@pytest.mark.parametrize(
    ("given", "url", "key"),
    [
        ("http://h:1/status", "http://h:1/bgmatch/", None),
        ("http://h:1/bgmatch/?board=a%2Fb", "http://h:1/bgmatch/", "a/b"),
        ("https://h/proxy/8787", "https://h/proxy/8787/bgmatch/", None),
    ],
)
def test_addresses_lead_to_the_page(given, url, key):
    source = PageSource(given)
    assert (source.url, source.key) == (url, key)


def test_a_run_is_watched_through_its_scheduler(cluster, simulated, tmp_path):
    from bgmatch_dask.pipeline.engine import DaskEngine

    plan = make_plan(make_job(simulated / "warps", tmp_path / "t.zarr"))
    seen = []
    with BoardFeed(plan, cluster) as feed:
        watcher = bgmatch_dask.monitor(cluster)
        look = threading.Thread(target=lambda: seen.append(watcher.wait(timeout=200)))
        run_tract(plan, DaskEngine(cluster), [feed])
        watcher._source.key = feed.key
        look.start()
    look.join()
    assert seen[0].cells == feed.board.cells
    assert bgmatch_dask.monitor(cluster.scheduler.address).board.key == feed.key
    assert isinstance(cluster, Client)
    assert "data:image/png" in watcher._repr_html_()


@pytest.fixture(scope="module")
def executed(simulated, tmp_path_factory):
    """The notebook of the recipe, carried out by a real kernel."""
    from nbclient import NotebookClient

    folder = tmp_path_factory.mktemp("notebook")
    book = nbformat.read(NOTEBOOK, as_version=4)
    assert not [cell for cell in book.cells if cell.get("outputs")]
    book.cells[1].source = (
        "import os\n"
        f"os.environ['BGMATCH_INPUTS'] = {str(simulated / 'warps')!r}\n" + book.cells[1].source
    )
    client = NotebookClient(
        book, timeout=250, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return book, folder


@pytest.mark.slow
def test_the_notebook_starts_a_job_and_its_board_follows_it(executed):
    book, _ = executed
    main, pictures = book.cells[2].outputs
    assert 'data-outcome="finished"' in main.data["text/html"]
    assert 'data-state="coadded"' in main.data["text/html"]
    assert "mosaic-after" in pictures.data["text/html"]
    assert book.cells[4].outputs[0].data["text/plain"] == "('finished', 0)"


@pytest.mark.slow
def test_a_converted_notebook_shows_the_board_in_a_browser(executed, tmp_path):
    from nbconvert import HTMLExporter

    book, _ = executed
    html, _ = HTMLExporter(template_name="basic").from_notebook_node(book)
    page = tmp_path / "monitor.html"
    page.write_text(f"<!doctype html><meta charset='utf-8'>{html}", encoding="utf-8")
    with browser(tmp_path / "profile") as driver:
        driver.get(page.as_uri())
        cells = driver.find_elements("css selector", ".bgm-matrix path[data-state=coadded]")
        assert len(cells) == 1
        assert cells[0].rect["width"] > 50
        images = driver.find_elements("css selector", ".bgm img")
        assert images
        assert all(image.get_property("naturalWidth") > 0 for image in images)
