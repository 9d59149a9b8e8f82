"""Estimated against true offsets of a simulated tract, in units of the photon noise."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.offsets import render
from bgmatch_dask.background.solution import Offset
from bgmatch_dask.background.superpixels import SuperpixelSums, from_array, merge
from bgmatch_dask.geometry import Box, SuperpixelGrid
from bgmatch_dask.pipeline.results import load_offset, load_summary
from bgmatch_dask.store import Location, TractStore, open_store
from bgmatch_dask.store.versions import current_version
from bgmatch_dask.warps.simulation import SimulationTruth, load_truth, true_sky

__all__ = ("TruthRow", "compare_with_truth")


@dataclass(frozen=True, slots=True)
class TruthRow:
    """One visit's offset against the truth."""

    visit: str
    """Label of the visit."""
    n_superpixels: int
    """Superpixels that the visit covers."""
    n_shared: int
    """Those of them that the reference covers too."""
    rms_before: float
    """Rms over them of the true difference of the two skies, about its mean [image unit]."""
    rms_error: float
    """Rms of estimated − true offset [image unit]."""
    rms_error_shared: float
    """The same over the superpixels that the reference covers too; NaN without any."""
    noise: float
    """Rms photon noise of the visit's own superpixel means: the limit [image unit]."""

    @property
    def overlaps_reference(self) -> bool:
        """Whether it shares a measured superpixel with the reference."""
        return self.n_shared > 0

    @property
    def ratio(self) -> float:
        """Error in units of the limit."""
        return self.rms_error / self.noise


def compare_with_truth(
    location: Location, run: str, truth_dir: str | os.PathLike[str], *, min_fraction: float = 0.1
) -> tuple[TruthRow, ...]:
    """Compare the offsets of a run over a simulated tract with the truth.

    Parameters
    ----------
    location, run
        The store and the run in it.
    truth_dir
        Folder that the simulation wrote.
    min_fraction
        A superpixel counts as covered when this share of its pixels is good.

    Returns
    -------
    tuple of TruthRow
        One row for every visit but the reference, in the order of the store.

    Raises
    ------
    StoreError
        ``run-missing``; ``offset-missing`` for a run that matched each warp alone.
    """
    store = open_store(location.url)
    truth = load_truth(truth_dir)
    run = current_version(location, run)
    summary = load_summary(location, run)
    reference = str(summary["reference"]["visit"])
    enough = min_fraction * store.spec.bin_size**2
    reference_covers = _sums(store, reference).n_good >= enough
    rows = []
    for visit in summary["visits"]:
        if visit["status"] in {"matched", "disconnected"}:
            offset = load_offset(store, run, visit["visit"])
            rows.append(_row(store, truth, offset, reference, reference_covers, enough))
    return tuple(rows)


def _row(
    store: TractStore,
    truth: SimulationTruth,
    offset: Offset,
    reference: str,
    reference_covers: NDArray[np.bool_],
    enough: float,
) -> TruthRow:
    sums = _sums(store, str(offset.visit))
    covers = (sums.n_good >= enough) & np.isfinite(sums.variance_of_mean)
    true, error = np.full(covers.shape, np.nan), np.full(covers.shape, np.nan)
    for sy, sx, box in _boxes(store.spec.grid, covers):
        expected = true_sky(truth, reference, box) - true_sky(truth, str(offset.visit), box)
        true[sy, sx] = expected.mean()
        error[sy, sx] = (render(offset, box) - expected).mean()
    shared = covers & reference_covers
    return TruthRow(
        str(offset.visit),
        int(covers.sum()),
        int(shared.sum()),
        float(np.std(true[covers])),
        float(np.sqrt(np.mean(error[covers] ** 2))),
        float(np.sqrt(np.mean(error[shared] ** 2))) if shared.any() else math.nan,
        float(np.sqrt(np.mean(sums.variance_of_mean[covers]))),
    )


def _boxes(grid: SuperpixelGrid, wanted: NDArray[np.bool_]) -> Iterator[tuple[int, int, Box]]:
    for sy, sx in np.argwhere(wanted).tolist():
        x, y = grid.box.x0 + sx * grid.bin_x, grid.box.y0 + sy * grid.bin_y
        yield sy, sx, Box(x, y, grid.bin_x, grid.bin_y).intersect(grid.box)


def _sums(store: TractStore, visit: str) -> SuperpixelSums:
    patches, grid = store.spec.geometry.patches, store.spec.grid
    index = store.spec.visit_index(visit)
    parts = (
        (grid.window(patches.inner_box(p)), from_array(store.read_unit_sums(index, p)))
        for p in range(patches.n_patches)
    )
    return merge(((w, s) for w, s in parts if np.isfinite(s.count).all()), grid)
