"""How often the pixels of a warp are read: once to ingest them, once to difference them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bgmatch_dask import open_tract
from bgmatch_dask.config import load_config
from bgmatch_dask.errors import ConfigError
from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import CLIPPED
from bgmatch_dask.pipeline import tasks
from bgmatch_dask.pipeline.attempt import file_checksum
from bgmatch_dask.pipeline.events import StageStarted, UnitDone
from bgmatch_dask.pipeline.outlier_masks import outlier_mask
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.store import Ledger, TractStore, open_store
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
        reads[stage[0], plane, visit, patch] += box.width * box.height
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
    inputs = [i for r in Ledger(plan.location, "main").read("ingest").values() for i in r.inputs]
    assert {(item.name, item.checksum) for item in inputs} == {(f, file_checksum(f)) for f in files}
    # Ingest, choice and solution never look at a stored pixel.
    assert {key[0] for key in reads} == {"difference", "coadd"}
    differenced = Counter({key[1:]: n for key, n in reads.items() if key[0] == "difference"})
    patches = plan.spec.geometry.patches
    for (_, _, patch), n in differenced.items():
        # Chunk by chunk, or as one box.
        read = patches.inner_box(patch).shape if method == "common_mask" else patches.plane_shape
        assert n == np.prod(read)
    units = {(plan.spec.visit_index(task.visit), task.patch) for task in plan.ingest}
    assert {key[1:] for key in differenced if key[0] == "image"} == units
    assert {key[0] for key in differenced} == {"image", "mask"}
    # Both coadds come from one reading.
    stacked = Counter({key[1:]: n for key, n in reads.items() if key[0] == "coadd"})
    assert set(stacked.values()) == {np.prod(patches.plane_shape)}
    assert {key[0] for key in stacked} == {"image", "variance", "mask"}


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


def test_outlier_masks_leave_the_trail_out_of_the_coadd_if_asked_for(tract, tmp_path):
    values = {
        "inputs": {"paths": [str(tract / "warps")]},
        "store": {"url": str(tmp_path / "tract.zarr")},
    }
    run_tract(make_plan(load_config(overrides=["background.bin_size=32"], values=values)))
    before = open_tract(values["store"]["url"]).load()
    job = load_config(overrides=["background.bin_size=32", "coadd.outliers=true"], values=values)
    units = Counter()
    run_tract(
        make_plan(job),
        None,
        (lambda e: units.update([e.stage] if isinstance(e, UnitDone) else []),),
    )
    # Only the coadd depends on it.
    assert units == {"coadd": 4}
    after = open_tract(values["store"]["url"]).load()
    store = open_store(make_plan(job).location.url)
    for patch in range(4):
        outer = store.spec.geometry.patches.outer_box(patch)
        window = outer.slices_in(store.spec.geometry.patches.plane_box(patch))
        left_out = sum(
            outlier_mask(store, "main", visit, outer)
            & np.isfinite(store.read("image", store.spec.visit_index(visit), patch, outer))
            for visit in store.spec.visits
        )
        fewer = (before["nimage"][patch].values - after["nimage"][patch].values)[window]
        assert fewer.max() > 0
        # A masked pixel was in no coadd before.
        assert (fewer <= left_out).all()
        clipped = (after["coadd_mask"][patch].values[window] & CLIPPED) != 0
        filled = after["nimage"][patch].values[window] > 0
        np.testing.assert_array_equal(clipped, (fewer > 0) & filled)
        same = fewer == 0
        np.testing.assert_array_equal(
            after["coadd"][patch].values[window][same], before["coadd"][patch].values[window][same]
        )


def test_there_must_be_outlier_masks_to_leave_out(tract, tmp_path):
    values = {"inputs": {"paths": [str(tract / "warps")]}, "store": {"url": str(tmp_path / "t")}}
    for other in ("match.outlier_sigma=null", "match.method=per_warp"):
        with pytest.raises(ConfigError) as caught:
            make_plan(load_config(overrides=["coadd.outliers=true", other], values=values))
        assert caught.value.code == "outliers-unmeasured"
