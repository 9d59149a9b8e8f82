"""Diagnostics add up, leave superpixels out honestly, reach files, and gate visits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.table import Table
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from bgmatch_dask import open_tract
from bgmatch_dask.background.diagnostics import diagnose, diagnose_patches, left_out_residuals
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.background.solve import solve_offsets
from bgmatch_dask.background.superpixel_folds import predict_left_out
from bgmatch_dask.background.superpixels import SuperpixelSums
from bgmatch_dask.cli.main import app
from bgmatch_dask.config import MatchConfig
from bgmatch_dask.errors import ConfigError, MatchError, StoreError
from bgmatch_dask.geometry import Box, PatchGrid, SuperpixelGrid
from bgmatch_dask.pipeline.diagnostics import (
    COLUMNS,
    judge,
    load_diagnostics,
    patch_of_superpixels,
)
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.results import load_summary
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.report.tables import diagnostics_table, write_table
from bgmatch_dask.store import Location, open_store
from tests.conftest import make_job

N, BIN, NOISE = 14, 32, 0.3
GRID = SuperpixelGrid(Box(0, 0, N * BIN, N * BIN), BIN, BIN)
PATCHES = PatchGrid(0, 0, 7 * BIN // 2, 7 * BIN, 4, 4, 2)


def noisy_pairs(seed, pairs=((1, 2),)):
    """Return sums of differences of smooth skies whose superpixel means have noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:N, :N] / N
    skies = {v: rng.normal(0, 20) + 9 * np.sin(2 * x + v) * np.cos(3 * y - v) for v in (1, 2, 3)}
    seen = {v: sky + rng.normal(0, NOISE, (N, N)) for v, sky in skies.items()}
    n = np.full((N, N), float(BIN**2))
    zero, second = np.zeros((N, N)), n * (BIN**2 - 1) / 12
    spread = (n - 1) * n * 2 * NOISE**2
    return {
        (a, b): SuperpixelSums(n, n * (seen[a] - seen[b]), spread, zero, second, zero, second, n)
        for a, b in pairs
    }


@pytest.mark.parametrize(
    ("pairs", "config"),
    [
        (((1, 2),), SolveConfig(smoothing=0.05)),
        (((1, 2), (1, 3), (2, 3)), SolveConfig(order=4)),
    ],
)
def test_left_out_residuals_are_those_of_solving_again(pairs, config):
    """The closed form agrees with refits, and exceeds the residuals of superpixels that were in."""
    full = np.ones((N, N), bool)
    ratios = []
    for seed in range(3):
        sums = noisy_pairs(seed, pairs)
        coverage = {v: full for pair in pairs for v in pair}
        # One thread, as in the pipeline: blocks of this size gain nothing from more.
        with threadpool_limits(1):
            solution = solve_offsets(sums, coverage, GRID, 1, config)
            again = predict_left_out(sums, coverage, solution, config)
        closed = left_out_residuals(solution)
        inside = solution.observations.value - solution.prediction
        assert np.isfinite(again.residual).all()
        assert again.rms > 1.02 * np.sqrt(np.mean(inside**2))
        ratios.append(np.sqrt(np.mean(closed**2)) / again.rms)
        for row in diagnose(solution, sums, coverage):
            assert row.cv_rms == pytest.approx(again.rms_visit[row.visit], rel=0.12)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.06)


def test_what_others_say_nothing_about_is_not_predicted():
    sums = noisy_pairs(0, ((1, 2),)) | noisy_pairs(1, ((3, 2),))
    lonely = {(1, 2): sums[1, 2]}
    full = np.ones((N, N), bool)
    solution = solve_offsets(lonely, {1: full, 2: full, 3: full}, GRID, 3, SolveConfig(order=1))
    again = predict_left_out(lonely, dict.fromkeys((1, 2, 3), full), solution, SolveConfig(order=1))
    assert np.isnan(again.residual).all()
    assert np.isnan(again.rms)


def test_patches_share_superpixels_out():
    patch_of = patch_of_superpixels(GRID, PATCHES)
    assert set(np.unique(patch_of)) == set(range(8))
    sums = noisy_pairs(3, ((1, 2), (1, 3)))
    full = np.ones((N, N), bool)
    coverage = {1: full, 2: full, 3: full}
    solution = solve_offsets(sums, coverage, GRID, 1, SolveConfig(order=2))
    warps = diagnose_patches(solution, sums, coverage, patch_of)
    assert list(warps) == [(v, p) for v in (1, 2, 3) for p in range(8)]
    for whole in diagnose(solution, sums, coverage):
        parts = [row for (visit, _), row in warps.items() if visit == whole.visit]
        assert sum(p.n_superpixels for p in parts) == whole.n_superpixels
        for name, weight in (("freedom", None), ("chi2", "freedom")):
            terms = [getattr(p, name) * (getattr(p, weight) if weight else 1) for p in parts]
            total = getattr(whole, name) * (getattr(whole, weight) if weight else 1)
            assert sum(terms) == pytest.approx(total)
        squares = sum(p.cv_rms**2 * p.n_superpixels for p in parts)
        assert squares == pytest.approx(whole.cv_rms**2 * whole.n_superpixels)
    # One patch by hand: the superpixels whose centres lie in it.
    row = warps[2, 5]
    residual = solution.residuals[1, 2][patch_of == 5]
    assert row.fit_rms == pytest.approx(np.sqrt(np.mean(residual**2)))
    assert row.matched_mse == pytest.approx(2 * NOISE**2 * BIN**2 + np.mean(residual**2))
    assert row.ratio == pytest.approx(row.matched_mse / (2 * NOISE**2 * BIN**2))
    assert row.coverage == 1.0


def test_superpixels_that_stick_out_of_the_tract_belong_to_its_last_patches():
    grid = SuperpixelGrid(Box(10, 20, 101, 65), 16, 16)
    patches = PatchGrid(10, 20, 101, 65, 0, 1, 1)
    assert set(np.unique(patch_of_superpixels(grid, patches))) == {0}


def rows(**figures):
    return [{"visit": "a", "gate": "warn", "reasons": ["ratio"], "status": "matched", **figures}]


def test_the_gate_judges_matches_and_never_the_reference():
    table = rows()
    assert judge(table, MatchConfig(gate="warn"), "r") == frozenset()
    assert judge(table, MatchConfig(gate="drop"), "a") == frozenset()
    assert table == rows()
    assert judge(table, MatchConfig(gate="drop"), "r") == {("a", None)}
    assert (table[0]["gate"], table[0]["status"]) == ("drop", "dropped")
    lost = rows(reasons=["disconnected"])
    for policy in ("drop", "fail"):
        assert judge(lost, MatchConfig(gate=policy), "r") == frozenset()
    with pytest.raises(MatchError, match=r"a \(ratio 3, 1\)") as caught:
        judge(rows(ratio=3.0, fit_rms=1.0), MatchConfig(gate="fail"), "r")
    assert caught.value.code == "gate-failed"


@pytest.fixture(scope="module")
def finished(simulated, tmp_path_factory):
    store = tmp_path_factory.mktemp("gate") / "tract.zarr"

    def again(*overrides):
        job = make_job(simulated / "warps", store, *overrides)
        return run_tract(make_plan(job))

    again()
    return Location.of(str(store)), again


def test_the_run_keeps_a_row_of_every_visit_and_warp(finished):
    location, _ = finished
    content = load_diagnostics(location, "main")
    summary = load_summary(location, "main")
    names = {c.name for c in COLUMNS}
    assert [r["visit"] for r in content["visits"]] == [v["visit"] for v in summary["visits"]]
    units = {(v["visit"], p) for v in summary["visits"] for p in range(4)}
    assert {(r["visit"], r["patch"]) for r in content["warps"]} <= units
    assert len(content["warps"]) >= summary["plan"]["units"] - 2
    for row in content["visits"] + content["warps"]:
        assert set(row) == names
    for row, visit in zip(content["visits"], summary["visits"], strict=True):
        assert row["fit_rms"] == visit["fit_rms"]
        assert row["cv_rms"] >= row["fit_rms"]
    with pytest.raises(StoreError) as caught:
        load_diagnostics(location, "other")
    assert caught.value.code == "run-missing"


def test_the_command_shows_and_writes_the_table(finished, tmp_path):
    location, _ = finished
    content = load_diagnostics(location, "main")
    invoke = CliRunner().invoke
    shown = invoke(app, ["diagnostics", location.url])
    assert shown.exit_code == 0, shown.output
    assert all(row["visit"] in shown.output for row in content["visits"])
    as_json = invoke(app, ["diagnostics", location.url, "--json"])
    assert json.loads(as_json.output) == content
    path = tmp_path / "new" / "warps.ecsv"
    result = invoke(app, ["diagnostics", location.url, "--by", "patch", "--table", str(path)])
    assert result.exit_code == 0, result.output
    table = Table.read(path)
    assert table.colnames == [c.name for c in COLUMNS]
    assert len(table) == len(content["warps"])
    for line, row in zip(table, content["warps"], strict=True):
        assert (str(line["visit"]), line["patch"]) == (row["visit"], row["patch"])
        assert line["fit_rms"] == row["fit_rms"] or (row["fit_rms"] is None)
    assert table["matched_mse"].info.meta == {"image_unit": content["unit"] + "**2"}
    bad = invoke(app, ["diagnostics", location.url, "--table", str(tmp_path / "x.txt")])
    assert bad.exit_code == 2
    assert "table-format" in bad.output


def test_parquet_holds_the_same(finished, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    content = load_diagnostics(finished[0], "main")
    table = diagnostics_table(content["visits"], content["unit"])
    write_table(table, tmp_path / "a.parquet")
    back = parquet.read_table(tmp_path / "a.parquet")
    for column in COLUMNS:
        want = [row[column.name] for row in content["visits"]]
        if column.name == "reasons":
            want = ["; ".join(item) for item in want]
        assert back[column.name].to_pylist() == want
    assert back.schema.field("fit_rms").metadata[b"image_unit"] == content["unit"].encode()


def test_hostile_labels_and_missing_figures_survive_a_table(tmp_path):
    label = "a\t\"b\" 'c'\n<d>, # %ECSV"
    table = diagnostics_table(
        [{"visit": label, "gate": "warn", "reasons": ["x; y", "z"]}], "μJy $x"
    )
    write_table(table, tmp_path / "t.ecsv")
    back = Table.read(tmp_path / "t.ecsv")
    assert back["visit"][0] == label
    assert back["reasons"][0] == "x; y; z"
    assert back["ratio"].mask[0]
    assert back["patch"].mask[0]


def test_pyarrow_is_asked_for_by_name(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError) as caught:
        write_table(diagnostics_table([], "DN"), tmp_path / "t.parquet")
    assert caught.value.code == "pyarrow-missing"
    assert not list(tmp_path.iterdir())


def test_the_gate_leaves_visits_out_of_the_coadd_or_stops(finished):
    """The last test of the module: it runs the job again with impossible limits."""
    location, again = finished
    depth = open_store(location.url).array("coadd/main_matched/nimage")[:]
    assert depth.max() > 1
    summary = again("match.gate=drop", "match.gate_ratio=0.5")
    dropped = {v["visit"] for v in summary["visits"] if v["status"] == "dropped"}
    reference = summary["reference"]["visit"]
    assert dropped == {v["visit"] for v in summary["visits"]} - {reference}
    product = summary["product"]
    assert open_store(location.url).array(f"coadd/{product}_matched/nimage")[:].max() == 1
    gates = {r["visit"]: r["gate"] for r in load_diagnostics(location, product)["visits"]}
    assert gates == dict.fromkeys(dropped, "drop") | {reference: "warn"}
    with pytest.raises(MatchError) as caught:
        again("match.gate=fail", "match.gate_ratio=0.5")
    assert caught.value.code == "gate-failed"
    again()
    np.testing.assert_array_equal(open_tract(location.url)["nimage"], depth)


def test_warps_matched_alone_are_judged_alone(simulated, tmp_path):
    """The limit lies between the ratios of the warps: some are dropped, and only those."""
    fixed = ("match.method=per_warp", "per_warp.cell_size=64")
    job = make_job(simulated / "warps", tmp_path / "tract.zarr", *fixed)
    run_tract(make_plan(job))
    location = Location.of(job.store.url)
    ratios = sorted(row["ratio"] for row in load_diagnostics(location, "main")["warps"])
    limit = 0.5 * (ratios[len(ratios) // 2 - 1] + ratios[len(ratios) // 2])
    drop = (*fixed, "match.gate=drop", f"match.gate_ratio={limit!r}")
    summary = run_tract(make_plan(make_job(simulated / "warps", tmp_path / "tract.zarr", *drop)))
    rows = load_diagnostics(location, summary["product"])["warps"]
    assert {row["gate"] for row in rows} == {"pass", "drop"}
    assert all((row["gate"] == "drop") == (row["ratio"] > limit) for row in rows)
    store = open_store(location.url)
    n_image = store.array(f"coadd/{summary['product']}_matched/nimage")
    for patch in range(4):
        kept = {r["visit"] for r in rows if r["patch"] == patch and r["gate"] == "pass"}
        kept |= {summary["reference"]["visit"]}
        covered = sum(
            np.isfinite(store.read("image", store.spec.visit_index(v), patch, box)).astype(int)
            for box in [store.spec.geometry.patches.outer_box(patch)]
            for v in kept
            if patch in store.patches_of(v)
        )
        assert n_image[patch].max() == covered.max()
