"""Direct warps go 256 pixels beyond their patch; the store holds the patch and its border."""

from __future__ import annotations

import numpy as np
import pytest

from bgmatch_dask.config import load_config
from bgmatch_dask.geometry import Box
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.store import open_store
from bgmatch_dask.warps.lsst_writing import write_lsst_warp
from bgmatch_dask.warps.patch_layout import GROWTH
from bgmatch_dask.warps.simulation import SimulationConfig
from bgmatch_dask.warps.warp import Warp

INNER, BORDER = 160, 16
WCS_CARDS = SimulationConfig(visits=2, patches=(2, 2), patch_size=INNER).geometry.wcs_cards


@pytest.fixture
def warps(tmp_path):
    """Two visits on 2 x 1 patches in the middle of a tract, as LSST's task writes them."""
    folder = tmp_path / "warps"
    folder.mkdir()
    for visit in (1, 2):
        for patch, x0 in enumerate((2 * INNER, 3 * INNER)):
            box = Box(x0, 4 * INNER, INNER, INNER).grow(BORDER + GROWTH)
            rng = np.random.default_rng([visit, patch])
            image = rng.normal(100 * visit, 1, box.shape).astype(np.float32)
            variance = np.ones(box.shape, np.float32)
            image[:40], variance[:40] = np.nan, np.inf
            warp = Warp(box, image, variance, np.zeros(box.shape, np.int32))
            write_lsst_warp(
                folder / f"warp_{visit}_{patch}.fits",
                warp,
                WCS_CARDS,
                visit=visit,
                tract=1,
                patch=patch,
                band="i",
            )
    return folder


def test_what_is_beyond_the_outer_box_is_not_stored(warps, tmp_path):
    config = load_config(
        values={
            "inputs": {"paths": [str(warps)]},
            "store": {"url": str(tmp_path / "t.zarr")},
            "tract": {"patch_inner": INNER, "border": BORDER},
            "background": {"bin_size": 32},
        }
    )
    plan = make_plan(config)
    patches = plan.spec.geometry.patches
    assert (patches.nx, patches.ny, patches.border) == (2, 1, BORDER)
    assert (patches.x0, patches.y0) == (2 * INNER, 4 * INNER)
    summary = run_tract(plan)
    assert not summary["rejected"]
    store = open_store(plan.location.url)
    box = patches.outer_box(1)
    stored = store.read("image", 0, 1, box)
    rng = np.random.default_rng([1, 1])
    whole = Box(3 * INNER, 4 * INNER, INNER, INNER).grow(BORDER + GROWTH)
    written = rng.normal(100, 1, whole.shape).astype(np.float32)
    np.testing.assert_array_equal(stored, written[box.slices_in(whole)])
