"""How often the pixels of a warp are read: once to ingest them, once to difference them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bgmatch_dask.config import load_config
from bgmatch_dask.geometry import Box
from bgmatch_dask.pipeline import tasks
from bgmatch_dask.pipeline.difference import outlier_mask
from bgmatch_dask.pipeline.events import StageStarted
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.store import TractStore, open_store
from bgmatch_dask.warps.simulation import SimulationConfig, load_truth, simulate_tract


@pytest.fixture(scope="module")
def tract(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reads")
    simulate_tract(folder, SimulationConfig(visits=5, patches=(2, 2), patch_size=200, border=20))
    return folder


@pytest.mark.parametrize("method", ["pixel", "common_mask"])
def test_each_warp_is_read_once_to_ingest_and_once_to_difference(
    tract, tmp_path, monkeypatch, method
):
    job = load_config(
        overrides=["background.bin_size=32", f"match.difference={method}"],
        values={
            "inputs": {"paths": [str(tract / "warps")]},
            "store": {"url": str(tmp_path / "tract.zarr")},
        },
    )
    stage, reads, files = [""], Counter(), Counter()
    read, read_unit = TractStore.read, tasks.read_unit

    def counted(store, plane, visit, patch, box, **options):
        reads[stage[0], plane, visit, patch] += 1
        return read(store, plane, visit, patch, box, **options)

    def counted_unit(inputs, *args, **options):
        files.update(file.path for file in inputs)
        return read_unit(inputs, *args, **options)

    def listen(event):
        if isinstance(event, StageStarted):
            stage[0] = event.stage

    monkeypatch.setattr(TractStore, "read", counted)
    monkeypatch.setattr(tasks, "read_unit", counted_unit)
    plan = make_plan(job)
    run_tract(plan, listeners=[listen])
    assert files == {file.path: 1 for task in plan.ingest for file in task.files}
    # Ingest, choice and solution never look at a stored pixel.
    assert {key[0] for key in reads} == {"difference", "coadd"}
    differenced = Counter({key[1:]: n for key, n in reads.items() if key[0] == "difference"})
    assert set(differenced.values()) == {1}
    units = {(plan.spec.visit_index(task.visit), task.patch) for task in plan.ingest}
    assert {key[1:] for key in differenced if key[0] == "image"} == units
    assert {key[0] for key in differenced} == {"image", "mask"}


@pytest.mark.parametrize("method", ["pixel", "common_mask"])
def test_the_unmasked_trail_is_in_the_outlier_masks(tract, tmp_path, method):
    job = load_config(
        overrides=["background.bin_size=32", f"match.difference={method}"],
        values={
            "inputs": {"paths": [str(tract / "warps")]},
            "store": {"url": str(tmp_path / "tract.zarr")},
        },
    )
    plan = make_plan(job)
    run_tract(plan)
    store, truth = open_store(plan.location.url), load_truth(tract)
    box = Box(30, 40, 340, 330)
    for visit in truth.visits:
        mask = outlier_mask(store, job.run, str(visit.visit), box)
        bright = np.zeros(box.shape, bool)
        for trail in visit.trails:
            if not trail.masked:
                bright |= trail.evaluate(box)[0] > 30.0
        y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1].astype(float)
        covered = visit.footprint.coverage(x, y)[0]
        if bright.any():
            assert mask[bright & covered].mean() > 0.6
        assert mask[~bright & covered].mean() < 0.2
    sizes = [
        (tmp_path / "tract.zarr" / f"match/{job.run}/outliers/{patch:05d}.npz").stat().st_size
        for patch in range(4)
    ]
    assert max(sizes) < 4000
