"""The main job on real images: Orion in 43 tiles, and two SDSS runs of one field."""

from __future__ import annotations

import numpy as np
import pytest

from bgmatch_dask.numerics.superpixels import bin_difference_statistics
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.results import load_summary
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.store import Location, TractStore, open_store
from tests.conftest import make_job

pytestmark = pytest.mark.slow


def whole_tract(store: TractStore, read) -> np.ndarray:
    patches = store.spec.geometry.patches
    out = np.full(patches.tract_box.shape, np.nan, np.float32)
    for patch in range(patches.n_patches):
        box = patches.inner_box(patch)
        out[box.slices_in(patches.tract_box)] = read(patch, box)
    return out


def test_orion_overlaps_agree(orion):
    folder, _ = orion
    summary = load_summary(Location.of(str(folder / "orion.zarr")), "main")
    figures = summary["overlaps"]
    assert summary["rejected"] == []
    assert figures["pairs"] >= 100
    assert figures["rms_before"] > 39
    assert figures["rms_after"] <= 0.3
    assert all(v["status"] in {"matched", "reference"} for v in summary["visits"])


def test_orion_keeps_its_nebula(orion):
    """Matched coadd − tile is a smooth surface: nothing of the nebula went into the offsets."""
    folder, _ = orion
    store = open_store(Location.of(str(folder / "orion.zarr")).url)
    matched = store.array("coadd/main_matched/image")
    coadd = whole_tract(store, lambda patch, _: matched[patch])
    edges = [np.arange(0, length + 1, 64) for length in coadd.shape]
    worst = {}
    for index, visit in enumerate(store.spec.visits):
        tile = whole_tract(store, lambda p, b, i=index: store.read("image", i, p, b))
        bins = bin_difference_statistics(coadd, None, tile, None, 0, edges[1], edges[0])
        bright = np.fmax.reduceat(np.fmax.reduceat(tile, edges[0][:-1]), edges[1][:-1], axis=1)
        used = (bins.n_good > 1000) & (bright[: len(edges[0]) - 1, : len(edges[1]) - 1] < 2000)
        worst[visit] = rms_about_plane(bins.mean, used)
    assert max(worst.values()) <= 0.5, {v: r for v, r in worst.items() if r > 0.3}


def rms_about_plane(values: np.ndarray, used: np.ndarray) -> float:
    y, x = np.nonzero(used)
    design = np.column_stack([np.ones(len(x)), x, y])
    solution = np.linalg.lstsq(design, values[used], rcond=None)[0]
    return float(np.std(values[used] - design @ solution))


def test_the_step_between_two_sdss_runs_is_gone(shared_data, tmp_path):
    job = make_job(
        shared_data / "sdss_stripe82_fpC",
        tmp_path / "sdss.zarr",
        "background.bin_size=128",
        profile="sdss",
    )
    summary = run_tract(make_plan(job))
    pair = summary["pairs"][0]
    assert abs(pair["before"]) > 20
    assert abs(pair["after"]) < 0.1
    store = open_store(Location.of(str(tmp_path / "sdss.zarr")).url)
    matched = {}
    for row in summary["visits"]:
        index = store.spec.visit_index(row["visit"])
        matched[row["visit"]] = whole_tract(
            store, lambda p, b, i=index, v=row: shifted(store, i, p, b, v)
        )
    first, second = matched.values()
    difference = first - second
    good = difference[np.isfinite(difference)]
    middle = np.median(good)
    width = 1.4826 * np.median(np.abs(good - middle))
    assert abs(good[np.abs(good - middle) < 3 * width].mean()) < 0.1


def shifted(store: TractStore, index: int, patch: int, box, row) -> np.ndarray:
    from bgmatch_dask.background.offsets import render
    from bgmatch_dask.pipeline.results import load_offset

    image = store.read("image", index, patch, box)
    if row["status"] == "reference":
        return image
    return image + render(load_offset(store, "main", row["visit"]), box)
