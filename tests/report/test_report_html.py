"""The report is complete, safe to open, and needs nothing but itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from bgmatch_dask.errors import StoreError
from bgmatch_dask.pipeline.engine import DaskEngine
from bgmatch_dask.report.explain import summarise_patches, worst_match
from bgmatch_dask.report.html import render_report, write_report
from tests.tiny_store import EVIL, RUN, SCRIPT, build_tiny_store, summary


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    location = build_tiny_store(tmp_path_factory.mktemp("report"))
    path = write_report(location, RUN)
    return Path(path).read_text(encoding="utf-8")


class _Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def test_text_from_outside_makes_no_element(report):
    page = _Elements(report)
    assert "script" not in page.tags
    assert not {"b", "i"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    text = "".join(page.text)
    for label in (SCRIPT, EVIL, "<b>tract</b>", "<img src=x onerror=alert(2)>"):
        assert label in text


def test_page_is_one_file(report):
    page = _Elements(report)
    links = [value for name, value in page.attributes if name in {"src", "href", "srcset", "data"}]
    assert links
    assert all(value.startswith("data:image/png;base64,") for value in links)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not re.search(r"url\(|@import", report)
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in (
        page.attributes
    )


def test_page_has_all_pictures_and_sections(report):
    page = _Elements(report)
    assert page.tags.count("img") == 7
    assert all(value for name, value in page.attributes if name == "alt")
    text = "".join(page.text)
    headings = ("Before and after", "Depth", "Offsets", "Visits", "Reference", "Rejected inputs")
    headings = (*headings, "The worst match, explained", "Patches", "Standard error of each offset")
    for heading in (*headings, "Time", "Solver", "Configuration"):
        assert heading in text
    assert "90.0 → 0.0100 DN" in text
    assert "matched MSE / difference variance is 2.000, the limit is 1.1" in text
    assert f"Visit {EVIL}: no chain of overlaps" in text


def test_a_run_without_data_or_numbers_has_a_report_too():
    bare = summary() | {"pairs": [], "rejected": [], "timings": {}, "visits": []}
    bare["overlaps"] = {"pairs": 0, "rms_before": None, "rms_after": None, "worst": None}
    text = "".join(_Elements(render_report(bare, [])).text)
    assert "None: every input was used." in text
    assert "– → – DN" in text


def test_overlaps_that_were_left_out_are_told_if_there_are_any():
    found = {"folds": 5, "pairs": 40, "untied": 2, "rms_before": 8.0, "rms": 0.25}
    text = "".join(_Elements(render_report(summary() | {"cross_validation": found}, [])).text)
    assert "8.00 → 0.250 DN" in text
    assert "40 pairs, each predicted from the others; 2 that nothing else ties" in text


def test_same_run_same_bytes_wherever_the_pictures_are_drawn(tmp_path, cluster):
    location = build_tiny_store(tmp_path)
    first = Path(write_report(location, RUN)).read_bytes()
    assert Path(write_report(location, RUN)).read_bytes() == first
    assert Path(write_report(location, RUN, DaskEngine(cluster))).read_bytes() == first


def test_unfinished_run_is_refused(tmp_path):
    location = build_tiny_store(tmp_path)
    with pytest.raises(StoreError) as caught:
        write_report(location, "other")
    assert caught.value.code == "run-missing"


def visit(label, cv_rms, **more):
    row = {"visit": label, "gate": "pass", "cv_rms": cv_rms, "coverage": 0.6, "patch": None}
    return row | {"difference_variance": 4.0} | more


def pair(hub, other, n, after):
    return {
        "hub": hub,
        "visit": other,
        "n_superpixels": n,
        "before": 9.0,
        "after": after,
        "sigma": 0.1,
    }


def test_the_worst_match_is_explained_by_its_overlaps():
    told = {"reference": {"visit": "r"}, "unit": "DN"}
    told["pairs"] = [pair("r", "a", 9, 0.1), pair("b", "a", 3, -2.0), pair("a", "c", 30, 0.2)]
    visits = [
        visit("r", 9.0),
        visit("a", 1.5, difference_variance=40.0),
        visit("b", 0.2, gate="warn"),
        visit("c", 0.1),
        visit("lost", None),
    ]
    warps = [visit("a", 0.3, patch=0), visit("a", 2.1, patch=5), visit("c", 8.0, patch=6)]
    found = worst_match(told, visits, warps)
    assert found.visit == "a"
    assert [n.visit for n in found.neighbours] == ["b", "c", "r"]
    # Seen from the visit: neighbour minus visit, whichever of them is the hub.
    assert [n.after for n in found.neighbours] == [-2.0, -0.2, 0.1]
    assert [n.flagged for n in found.neighbours] == [True, False, False]
    text = " ".join(found.reasons)
    for part in ("1.5 DN", "3 visit(s)", "60 %", "has 30", "with b, which did not", "patch 5"):
        assert part in text
    assert "10 × as much" in text
    quiet = worst_match(told, [visit("r", 1.0), visit("c", 0.3)], [])
    assert "stands out" not in " ".join(quiet.reasons)
    assert worst_match(told, [visit("r", 1.0), visit("lost", None)], []) is None


def test_patches_are_summed_up_the_worst_first():
    rows = [
        visit("a", 3.0, patch=2, gate="warn"),
        visit("b", 4.0, patch=2),
        visit("a", 1.0, patch=0),
        visit("b", None, patch=0),
    ]
    first, second = summarise_patches(rows)
    assert (first.patch, first.n_warps, first.n_flagged, first.worst) == (2, 2, 1, "b")
    assert first.rms == pytest.approx(12.5**0.5)
    assert (second.patch, second.n_warps, second.rms) == (0, 1, 1.0)
    assert summarise_patches([]) == []


def test_a_browser_shows_the_page_without_error(tmp_path):
    """The page as people see it: chromium draws all pictures and runs nothing."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("there is no chromium")
    page = Path(write_report(build_tiny_store(tmp_path), RUN))
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu",
            "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1200,900", f"--screenshot={tmp_path / 'page.png'}", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "Refused" not in done.stderr
    with Image.open(tmp_path / "page.png") as image:
        # A blank or half-drawn page has few colours.
        assert image.size == (1200, 900)
        assert len(image.convert("L").getcolors(256)) > 20
