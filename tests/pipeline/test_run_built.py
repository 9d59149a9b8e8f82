"""A run that builds its reference from the matched visits."""

from __future__ import annotations

import numpy as np
import pytest

from bgmatch_dask import open_offsets
from bgmatch_dask.errors import ConfigError
from bgmatch_dask.pipeline.events import UnitDone
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.report.truth_table import compare_with_truth
from bgmatch_dask.store import Location
from tests.conftest import make_job


def mean_error(store, truth):
    rows = compare_with_truth(Location.of(str(store)), "main", truth)
    return float(np.sqrt(np.mean([row.rms_error**2 for row in rows])))


def test_iterations_settle_and_the_result_is_better_than_that_of_the_pairs(simulated, tmp_path):
    warps = simulated / "warps"
    run_tract(make_plan(make_job(warps, tmp_path / "pairs.zarr")))
    store = tmp_path / "built.zarr"
    job = make_job(warps, store, "match.iterations=3")
    units = []
    summary = run_tract(make_plan(job), None, (units.append,))
    built = [e.unit for e in units if isinstance(e, UnitDone) and e.stage == "built"]
    assert built == [f"{number}/{patch}" for number in (1, 2, 3) for patch in range(4)]
    changes = summary["solver"]["convergence"]
    assert len(changes) == 3
    # The rounds keep the strengths of the first: what they change shrinks by a factor each time.
    assert changes[1] < 0.7 * changes[0]
    assert changes[2] < 0.85 * changes[1]
    assert mean_error(store, simulated) < mean_error(tmp_path / "pairs.zarr", simulated)
    assert summary["reference"]["visit"] not in open_offsets(str(store))


def test_the_built_reference_is_one_round_and_nothing_is_done_twice(simulated, tmp_path):
    store = tmp_path / "tract.zarr"
    job = make_job(simulated / "warps", store, "reference.built=true")
    first = run_tract(make_plan(job), until="offsets")
    assert first["units"]
    place = Location.of(str(store))
    before = {name: place.read_bytes(name) for name in place.list("match")}
    events = []
    summary = run_tract(make_plan(job), None, (events.append,))
    assert {e.stage for e in events if isinstance(e, UnitDone)} == {"coadd"}
    assert len(summary["solver"]["convergence"]) == 1
    assert {name: place.read_bytes(name) for name in before} == before


def test_warps_matched_alone_build_no_reference(simulated, tmp_path):
    job = make_job(
        simulated / "warps", tmp_path / "t.zarr", "match.method=per_warp", "match.iterations=1"
    )
    with pytest.raises(ConfigError) as caught:
        make_plan(job)
    assert caught.value.code == "built-per-warp"
