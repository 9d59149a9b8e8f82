"""The parts of the benchmark run at tiny sizes, and the command finds them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from benchmarks import scaling
from benchmarks.accuracy import growth_of
from benchmarks.command import run_parts, verdict
from benchmarks.compare import compare
from benchmarks.html import write_html
from benchmarks.job import JobMeasure, StageMeasure
from benchmarks.measure import in_process
from benchmarks.peers.meshes import run_own
from benchmarks.peers.scene import Scene, save_corrections
from benchmarks.peers.score import score
from benchmarks.progress import Progress
from benchmarks.results import Check, spread
from benchmarks.scaling import makespan
from benchmarks.sizes import SIZES
from bgmatch_dask.cli import bench
from bgmatch_dask.cli.main import app
from bgmatch_dask.config import load_config
from bgmatch_dask.report.truth_table import TruthRow
from bgmatch_dask.store import Location


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


def test_records_of_two_sizes_are_not_compared():
    assert compare(record(1.0), record(2.0) | {"size": "full"}) == []


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


def test_a_played_plan_is_held_up_by_workers_scheduler_or_the_longest_unit():
    # Four units of 1 s on two workers; then a scheduler slower than the units.
    assert makespan([1.0] * 4, 2, 0.0, 3) == pytest.approx(2.0)
    assert makespan([0.001] * 100, 50, 0.1, 3) == pytest.approx(10.0, rel=0.01)
    assert makespan([0.1, 5.0, 0.1], 3, 0.0, 1) == pytest.approx(5.0)
    # One unit in flight per worker: nothing is handed out before something ends.
    assert makespan([1.0, 1.0], 1, 0.5, 1) == pytest.approx(3.0)


def test_the_time_left_follows_the_pace_of_the_machine():
    clock, lines = [0.0], []
    progress = Progress({"a": 20, "b": 60}, lines.append, lambda: clock[0])
    assert progress.left() == pytest.approx(80)
    progress.part("a")
    progress.expect(2)
    progress.step("first")
    clock[0] = 20.0  # Half of the part took twice its time.
    progress.step("second")
    assert 80 < progress.left() < 140
    progress.part("b")
    assert progress.left() == pytest.approx(60 * (20 + 10) / (20 + 10))
    assert lines[1].startswith("bench: a 2/2, second; about ")


def row(visit: str, error: float, shared: int = 5) -> TruthRow:
    return TruthRow(visit, 10, shared, 20.0, error, error, 0.2)


def test_growth_is_that_of_the_worst_visit_that_meets_the_reference():
    small = (row("1", 0.1), row("2", 0.2), row("3", 0.1, shared=0))
    large = (row("1", 0.14), row("2", 0.1), row("3", 9.0, shared=0), row("4", 5.0))
    assert growth_of(small, large) == pytest.approx(0.2)


def test_a_claim_that_small_sizes_cannot_judge_is_neither_met_nor_missed():
    check = asdict(Check("claim", 9.0, 1.5, judged=False))
    assert verdict(check).split()[0] == "--full"
    assert verdict(check | {"judged": True}).startswith("NOT MET")


@pytest.fixture
def scene(tmp_path):
    """Three visits of 40 x 40 samples whose skies are known."""
    y, x = np.indices((40, 40), float)
    skies = {"1": 100 + 0 * x, "2": 150 + 0.5 * x, "3": 80 - 0.2 * y}
    (tmp_path / "scene.json").write_text(json.dumps({"visits": list(skies), "shape": [160, 160]}))
    for n, (visit, sky) in enumerate(skies.items()):
        good = np.ones_like(sky, bool)
        good[:, 20 + 5 * n :] = n == 0
        np.savez(tmp_path / f"truth-{visit}.npz", sky=sky, good=good)
    np.save(tmp_path / "diffuse.npy", 20 * np.exp(-((x - 10) ** 2 + (y - 20) ** 2) / 60))
    return Scene(tmp_path), skies


def scored(scene, tmp_path, corrections):
    save_corrections(str(tmp_path / "out.npz"), corrections)
    return score(scene, tmp_path / "out.npz")


def test_the_truth_scores_zero(scene, tmp_path):
    found = scored(scene[0], tmp_path, {v: 100 - sky for v, sky in scene[1].items()})
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.seam == pytest.approx(0, abs=1e-9)
    assert found.diffuse == pytest.approx(1)
    assert found.visits == 3


def test_a_level_is_an_error_and_a_seam(scene, tmp_path):
    perfect = {v: 100 - sky for v, sky in scene[1].items()}
    found = scored(scene[0], tmp_path, perfect | {"2": perfect["2"] + 3})
    assert found.worst == pytest.approx(3)
    assert found.seam_worst == pytest.approx(1)


def test_subtracted_diffuse_light_is_missed(scene, tmp_path):
    diffuse = np.load(tmp_path / "diffuse.npy")
    found = scored(scene[0], tmp_path, {v: -sky - diffuse for v, sky in scene[1].items()})
    assert found.diffuse == pytest.approx(0, abs=0.01)


def test_a_visit_without_a_correction_is_not_counted(scene, tmp_path):
    perfect = {v: 100 - sky for v, sky in scene[1].items()}
    del perfect["3"]
    assert scored(scene[0], tmp_path, perfect).visits == 2


def test_our_mesh_brings_visits_together(scene, tmp_path):
    y, x = np.indices((160, 160), np.float32)
    light = 40 * np.sin(x / 3) * np.cos(y / 5)
    skies = {"1": 100 + 0 * x, "2": 150 + 0.5 * x / 4, "3": 80 - 0.2 * y / 4}
    for visit, sky in skies.items():
        image = (sky + light).astype(np.float32)
        image[:, 100:] = np.where(visit == "1", image[:, 100:], np.nan)
        fits.writeto(tmp_path / f"visit-{visit}.fits", image)
    run_own(str(tmp_path), str(tmp_path / "own.npz"))
    # Cells are nearly as large as the image, so that their edges keep a part of the slopes.
    assert score(scene[0], tmp_path / "own.npz").error < 2


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


_CONFIG = load_config(values={"inputs": {"paths": ["."]}, "store": {"url": "nowhere.zarr"}})


def _measured(units: int, pixels: float, seconds: float) -> JobMeasure:
    def stage(taken: float, n: int) -> StageMeasure:
        return StageMeasure(taken, n, 0.0, 0.0, 0.0, 0.0)

    stages = {"ingest": stage(1.0, units), "reference": stage(seconds, 0)}
    return JobMeasure(Location.of("nowhere.zarr"), _CONFIG, 1.0, {}, pixels, stages)


def test_a_stage_of_the_driver_is_continued_in_warps_and_superpixels():
    area = _CONFIG.background.bin_size**2
    sizes = [(16, 9e3), (27, 400.0), (217, 3e3), (38, 500.0), (398, 5e3)]
    jobs = [_measured(n, bins * area, 0.02 + 4e-4 * n + 1e-7 * bins) for n, bins in sizes]
    found = scaling._continued(jobs, "reference", 8100, 9e6)
    assert found == pytest.approx(0.02 + 4e-4 * 8100 + 1e-7 * 9e6)
    # Noise that falls with the size does not make a large tract take less than nothing.
    jobs = [_measured(n, bins * area, 0.1 - 1e-5 * n) for n, bins in sizes]
    assert scaling._continued(jobs, "reference", 8100, 9e6) > 0.05
