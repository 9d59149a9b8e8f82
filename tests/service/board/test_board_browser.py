"""The page of the scheduler in a real browser, while a run goes on and after it."""

from __future__ import annotations

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from bgmatch_dask.errors import Rejected
from bgmatch_dask.pipeline.events import (
    TOPIC,
    Picture,
    RunEnded,
    RunStarted,
    StageEnded,
    StageStarted,
    UnitDone,
    UnitStarted,
    to_message,
)
from bgmatch_dask.service.board.pictures import _grey
from bgmatch_dask.service.board.plugin import board_link, install_board
from tests.service.board.browser import browser

EVIL = "\"><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


class Run:
    """Tells the scheduler of a run that the test steers."""

    def __init__(self, client, key):
        self.client, self.key, self.at = client, key, 1.0e9

    def __call__(self, *events):
        self.at += 1.0
        items = [{"at": self.at, **to_message(event)} for event in events]
        self.client.log_event(TOPIC, {"board": self.key, "events": items})


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def until(driver, condition):
    return WebDriverWait(driver, 120).until(lambda _: condition())


def each(driver, selector, expression):
    """Return what an expression of ``e`` is for the elements that there are at one moment.

    The page replaces what is drawn at any moment, also between finding and asking.
    """
    script = f"return [...document.querySelectorAll(arguments[0])].map(e => {expression})"
    return driver.execute_script(script, selector)


def texts(driver, selector):
    return each(driver, selector, "e.innerText.trim()")


def state_counts(driver):
    found = each(driver, ".bgm-matrix path[data-count]", "[e.dataset.state, +e.dataset.count]")
    return dict(found)


def widths(driver, selector):
    """Return the true widths of pictures."""
    return each(driver, selector, "e.naturalWidth")


def test_the_page_follows_a_run_by_itself(cluster, driver):
    import numpy as np

    install_board(cluster)
    run = Run(cluster, "follow")
    driver.get(board_link(cluster, "follow"))
    run(RunStarted("main", "/t.zarr", "t", "r", "nJy", ("a", "b"), 3, 1, "111110"))
    run(StageStarted("ingest", 5, 0), UnitStarted("ingest", "a/0", "w", 10))
    until(driver, lambda: state_counts(driver) == {"waiting": 5})
    # The start of the run and that of the unit come one after the other.
    until(driver, lambda: each(driver, "path[data-state=working]", "1"))
    until(driver, lambda: texts(driver, ".bgm-badge") == ["running"])

    units = ("a/0", "a/1", "a/2", "b/0")
    run(*(UnitDone("ingest", unit, 1.0, (), worker="w") for unit in units))
    until(driver, lambda: state_counts(driver) == {"waiting": 1, "ingested": 4})

    bar = (driver, "[data-stage=ingest] .bgm-bar")
    assert each(*bar, "e.getAttribute('aria-valuenow')") == ["4"]
    width = "{}.getBoundingClientRect().width"
    share = f"{width.format('e.querySelector(`i`)')} / {width.format('e')}"
    until(driver, lambda: abs(each(*bar, share)[0] - 0.8) < 0.02)

    bad = Rejected("fits-truncated", "It ends early.", "b.fits")
    run(UnitDone("ingest", "b/1", 1.0, (bad,), usable=False), StageEnded("ingest", 5.0))
    until(driver, lambda: texts(driver, ".bgm-rejected code") == ["fits-truncated"])
    until(driver, lambda: state_counts(driver) == {"ingested": 4, "rejected": 1})

    run(Picture("mosaic-after", "after", "1 of 3", _grey(np.full((4, 4), 0.5))))
    until(driver, lambda: widths(driver, "#pictures img") == [4])
    run(RunEnded("finished"))
    until(driver, lambda: texts(driver, ".bgm-badge") == ["finished"])
    assert "finished" in driver.title


def test_labels_of_inputs_run_nothing(cluster, driver):
    install_board(cluster)
    run = Run(cluster, EVIL)
    bad = Rejected(EVIL, EVIL, EVIL)
    run(
        RunStarted(EVIL, EVIL, EVIL, EVIL, EVIL, (EVIL,), 2, 1, "11", (bad,)),
        StageStarted(EVIL, 4, 0),
        UnitStarted("ingest", f"{EVIL}/0", EVIL),
        UnitDone("ingest", f"{EVIL}/1", 1.0, (bad,), worker=EVIL),
        Picture("offset-0", "offset", EVIL, b"no image"),
        RunEnded("failed", EVIL),
    )
    driver.get(board_link(cluster, EVIL))
    until(driver, lambda: texts(driver, ".bgm-badge") == ["failed"])
    until(driver, lambda: len(widths(driver, "#pictures img")) == 1)
    assert driver.execute_script("return document.title") != "owned"
    assert not driver.find_elements("css selector", "main img[src=x], main script")
    assert EVIL in texts(driver, "table.bgm-rejected")[0]


def test_a_tract_of_twenty_thousand_units_stays_light(cluster, driver):
    """200 visits x 100 patches in mixed states: drawn whole, and small on the wire."""
    from urllib.request import urlopen

    install_board(cluster)
    run = Run(cluster, "large")
    visits = tuple(f"v{i:06d}" for i in range(200))
    run(RunStarted("main", "/t.zarr", "t", "r", "nJy", visits, 10, 10, "1" * 20_000))
    done = [UnitDone("ingest", f"{visits[i % 200]}/{i // 200}", 1.0, ()) for i in range(9_950)]
    run(StageStarted("ingest", 20_000, 0), *done)
    link = board_link(cluster, "large")
    until(driver, lambda: b'"done": 9950' in urlopen(link.replace("?", "board.json?")).read())
    assert len(urlopen(link.replace("?", "board.json?")).read()) < 40_000
    assert len(urlopen(link.replace("?", "fragment.html?")).read()) < 60_000
    driver.get(link)
    until(driver, lambda: state_counts(driver) == {"waiting": 10_050, "ingested": 9_950})
    (box,) = each(driver, ".bgm-matrix", "e.getBoundingClientRect()")
    assert 0 < box["height"] < 500
    assert 0 < box["width"] < 1200


def test_the_page_says_when_the_scheduler_is_gone(cluster, driver):
    install_board(cluster)
    run = Run(cluster, "gone")
    run(RunStarted("main", "/t.zarr", "t", "r", "nJy", ("a",), 1, 1, "1"))
    driver.get(board_link(cluster, "gone"))
    until(driver, lambda: texts(driver, ".bgm-badge") == ["running"])
    driver.set_network_conditions(offline=True, latency=0, throughput=0)
    until(driver, lambda: "does not answer" in texts(driver, "#trouble")[0])
    assert texts(driver, ".bgm-badge") == ["running"]
    driver.delete_network_conditions()
    until(driver, lambda: each(driver, "#trouble", "e.checkVisibility()") == [False])
