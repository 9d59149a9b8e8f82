"""The parts of the benchmark run at tiny sizes, and the command finds them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from benchmarks.command import run_parts
from benchmarks.compare import compare
from benchmarks.html import write_html
from benchmarks.measure import in_process
from benchmarks.results import Check, spread
from benchmarks.sizes import SIZES
from bgmatch_dask.cli import bench
from bgmatch_dask.cli.main import app


def test_a_spread_is_median_least_and_most():
    figure = spread("a.b", [3.0, 1.0, 2.5], "s", "lower")
    assert (figure.value, figure.low, figure.high, figure.repeats) == (2.5, 1.0, 3.0, 3)


@pytest.mark.parametrize(
    ("value", "at_most", "met"), [(1.5, True, True), (1.6, True, False), (1.6, False, True)]
)
def test_a_check_knows_its_direction(value, at_most, met):
    assert Check("claim", value, 1.5, at_most).met is met


def record(value: float, relative: bool = True, processor: str = "p") -> dict:
    figure = {"key": "k", "value": value, "low": value, "high": value, "unit": "x"}
    figure |= {"better": "lower", "relative": relative}
    machine = {"processor": processor, "cpus": 2, "memory_gb": 1}
    return {"machine": machine, "size": "quick", "parts": {"p": {"figures": [figure]}}}


@pytest.mark.parametrize(("new", "verdict"), [(1.05, "same"), (1.5, "WORSE"), (0.5, "better")])
def test_a_comparison_calls_small_changes_the_same(new, verdict):
    (row,) = compare(record(1.0), record(new))
    assert row["verdict"].startswith(verdict)


def test_seconds_of_two_machines_are_not_compared():
    assert compare(record(1.0, relative=False), record(2.0, relative=False, processor="q")) == []
    assert len(compare(record(1.0), record(2.0, processor="q"))) == 1


def test_a_failure_in_a_process_of_its_own_is_told():
    result = in_process("math:sqrt", {"nonsense": 1})
    assert result.value is None
    assert "TypeError" in result.error


def test_a_process_is_metered():
    result = in_process("benchmarks.machine:describe_machine", {})
    assert result.error == ""
    assert result.value["cpus"] >= 1
    assert result.peak > 5
    assert math.isfinite(result.cpu)


@pytest.mark.slow
def test_stages_are_measured_and_reported(tmp_path):
    found = run_parts(replace(SIZES["tiny"], repeats=1), ["stages"], tmp_path, quiet=True)
    part = found["parts"]["stages"]
    keys = {figure["key"] for figure in part["figures"]}
    assert {"stages.whole_job", "stages.ingest", "stages.coadd", "stages.decode_floor"} <= keys
    assert all(figure["value"] > 0 for figure in part["figures"])
    rows = {row[0]: row for row in part["tables"][0]["rows"]}
    assert rows["ingest"][4] > 0.01  # MB read by the workers
    assert rows["ingest"][5] > 0.01
    assert json.loads(json.dumps(found)) is not None
    write_html(found, [found, found], tmp_path / "bench.html")
    page = (tmp_path / "bench.html").read_text(encoding="utf-8")
    assert "Whole job" in page
    assert "<svg" in page
    assert "<script" not in page


def test_without_the_source_tree_the_command_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "a" / "b" / "c" / "bench.py"))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["bench"])
    assert result.exit_code == 2
    assert "bench-missing" in result.output
    assert "Clone the repository" in result.output


def test_an_unknown_part_is_refused(tmp_path, capfd):
    result = CliRunner().invoke(app, ["bench", "--parts", "nonsense", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "nonsense" in capfd.readouterr().err
