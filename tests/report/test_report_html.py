"""The report is complete, safe to open, and needs nothing but itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bgmatch_dask.errors import StoreError
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
    assert page.tags.count("img") == 5
    assert all(value for name, value in page.attributes if name == "alt")
    text = "".join(page.text)
    headings = ("Before and after", "Depth", "Offsets", "Visits", "Reference", "Rejected inputs")
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


def test_same_run_same_bytes(tmp_path):
    location = build_tiny_store(tmp_path)
    first = Path(write_report(location, RUN)).read_bytes()
    assert Path(write_report(location, RUN)).read_bytes() == first


def test_unfinished_run_is_refused(tmp_path):
    location = build_tiny_store(tmp_path)
    with pytest.raises(StoreError) as caught:
        write_report(location, "other")
    assert caught.value.code == "run-missing"
