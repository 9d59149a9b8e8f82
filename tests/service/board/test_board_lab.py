"""The board inside a real JupyterLab: it follows the run, and the Lab's style lets it be."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from urllib.request import urlopen

import nbformat
import numpy as np
import pytest

from bgmatch_dask.errors import Rejected
from bgmatch_dask.pipeline.events import (
    Picture,
    RunEnded,
    RunStarted,
    StageEnded,
    StageStarted,
    UnitDone,
)
from bgmatch_dask.service.board import board_to_json
from bgmatch_dask.service.board.feed import board_path, picture_path
from bgmatch_dask.service.board.pictures import _grey
from bgmatch_dask.service.board.reducer import apply_event, open_board
from bgmatch_dask.store import Location
from tests.ports import reserved_ports
from tests.service.board.browser import browser
from tests.service.board.test_board_browser import (
    EVIL,
    each,
    state_counts,
    texts,
    until,
    widths,
)

pytestmark = pytest.mark.slow
KERNEL_STATUS = (
    "return window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
)


class StoredRun:
    """Writes the board of a run that the test steers into a store."""

    def __init__(self, place):
        self.location, self.board, self.at = Location.of(str(place)), open_board("lab"), 1.0e9

    def __call__(self, *events):
        for event in events:
            self.at += 1.0
            self.board = apply_event(self.board, event, self.at)
            if isinstance(event, Picture):
                self.location.write_bytes(picture_path("main", event.name), event.png)
        self.location.write_json(board_path("main"), board_to_json(self.board))


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab in a folder with one notebook."""
    pytest.importorskip("jupyterlab")
    cell = nbformat.v4.new_code_cell(
        "import bgmatch_dask\nbgmatch_dask.monitor('t.zarr', every=0.2)"
    )
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    book = nbformat.v4.new_notebook(cells=[cell], metadata=kernel)
    nbformat.write(book, tmp_path / "watch.ipynb")
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "RUNTIME")}
    options = ("--allow-root", "--no-browser", "--expose-app-in-browser", "--ip=127.0.0.1")
    options += ("--IdentityProvider.token=", "--LabApp.collaborative=False")
    options += (f"--notebook-dir={tmp_path}", "--ServerApp.port_retries=0")
    with (tmp_path / "lab.log").open("wb") as log, reserved_ports(1) as (port,):
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options, f"--port={port}"],
            env={**os.environ, **folders, "IPYTHONDIR": str(tmp_path / "ipython")},
            stdout=log,
            stderr=log,
            cwd=tmp_path,
        )
        try:
            end = time.monotonic() + 120
            while not answers(f"http://127.0.0.1:{port}/api"):
                assert process.poll() is None, (tmp_path / "lab.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/lab/tree/watch.ipynb?reset"
        finally:
            process.terminate()
            process.wait(timeout=200)


def answers(url):
    try:
        urlopen(url, timeout=20).close()
    except OSError:
        return False
    return True


def test_the_board_follows_a_run_in_a_notebook(lab, tmp_path):
    run = StoredRun(tmp_path / "t.zarr")
    bad = Rejected(EVIL, EVIL, EVIL)
    run(
        RunStarted("main", EVIL, EVIL, "r", EVIL, ("a", EVIL), 3, 1, "111110", (bad,)),
        StageStarted("ingest", 5, 0),
        UnitDone("ingest", "a/0", 1.0, (), worker=EVIL),
    )
    with browser(tmp_path / "profile") as driver:
        driver.get(lab)
        until(driver, lambda: driver.execute_script(KERNEL_STATUS) == "idle")
        driver.execute_script("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        until(driver, lambda: state_counts(driver) == {"waiting": 4, "ingested": 1})
        assert texts(driver, ".bgm-badge") == ["running"]

        units = [UnitDone("ingest", unit, 1.0, ()) for unit in ("a/1", "a/2", f"{EVIL}/0")]
        run(*units, Picture("mosaic-after", "after", EVIL, _grey(np.full((4, 4), 0.5))))
        until(driver, lambda: state_counts(driver) == {"waiting": 1, "ingested": 4})
        until(driver, lambda: widths(driver, ".bgm img") == [4])

        run(UnitDone("ingest", f"{EVIL}/1", 1.0, ()), StageEnded("ingest", 5.0))
        run(RunEnded("failed", EVIL))
        until(driver, lambda: texts(driver, ".bgm-badge") == ["failed"])
        assert "owned" not in driver.title
        assert not driver.find_elements("css selector", ".bgm img[src=x], .bgm script")
        assert EVIL in texts(driver, "table.bgm-rejected")[0]
        check_layout(driver)
        light = colours(driver)
        driver.execute_script(
            "void window.jupyterapp.commands.execute('apputils:change-theme',"
            "{theme: 'JupyterLab Dark'})"
        )
        until(driver, lambda: colours(driver) != light)
        assert brightness(light["background"]) > 200 > 100 > brightness(light["ink"])
        dark = colours(driver)
        assert brightness(dark["background"]) < 50 < 200 < brightness(dark["ink"])


def check_layout(driver):
    """Names stand above their numbers, and words on the left: the Lab would have it otherwise."""
    boxes = "[...e.querySelectorAll('dt, dd')].map(part => part.getBoundingClientRect())"
    facts = each(driver, ".bgm-facts div", boxes)
    assert facts
    for name, value in facts:
        assert value["y"] >= name["y"] + name["height"] - 1
        assert abs(value["x"] - name["x"]) < 1
    aligned = each(driver, ".bgm-stages th, .bgm-rejected td", "getComputedStyle(e).textAlign")
    assert set(aligned) == {"left"}
    cut = each(driver, ".bgm td", "e.scrollWidth > e.clientWidth && e.innerText")
    assert cut
    assert not any(cut), cut
    striped = each(driver, ".bgm tr", "getComputedStyle(e).backgroundColor")
    assert set(striped) == {"rgba(0, 0, 0, 0)"}


def colours(driver):
    style = "[getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
    return dict(zip(("background", "ink"), each(driver, ".bgm", style)[0], strict=True))


def brightness(colour):
    return sum(int(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]) / 3
