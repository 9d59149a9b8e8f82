"""A model of what the upstream task does and costs, written from its description.

Per warp it reads the file three times (cost of the reference, difference, matched warp), and for a
difference the reference's file as well; it goes over every bin of the *tract* in a Python loop for
each warp, measures windows two bins wide that step by one bin, and fills the tract by a spline
through the bins of the one reference. Windows are measured by our compiled kernel, which is quicker
than the original's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.scene import STRIDE, Scene, save_corrections
from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import bits_of
from bgmatch_dask.numerics.gridded import background_from_values
from bgmatch_dask.numerics.superpixels import bin_statistics
from bgmatch_dask.warps.lsst import read_lsst_warp
from bgmatch_dask.warps.warp import Warp

__all__ = ("run_upstream",)

_BIN = 128
_NODES = 5
"""Bins that the spline needs on each axis."""
_BAD = bits_of(("BAD", "SAT", "CR", "EDGE", "NO_DATA", "SENSOR_EDGE", "STREAK"))
Image = NDArray[np.float32]


def run_upstream(folder: str, out: str, tract: str) -> None:
    """Match warps of a tract as upstream does, patch by patch, and stack them by the mean."""
    scene = Scene(Path(folder))
    files = {v: sorted((Path(tract) / "warps").glob(f"warp_v{v}_p*.fits")) for v in scene.visits}
    for visit in scene.visits:
        _tract_statistics(scene, ((read_lsst_warp(path), None) for path in files[visit]))
    reference = scene.visits[0]
    corrections: dict[str, NDArray[Any]] = {}
    total, number = np.zeros(scene.shape), np.zeros(scene.shape, np.int32)
    for visit in scene.visits:
        added = np.zeros(scene.shape, np.float32)
        if visit != reference:
            values = _tract_statistics(scene, _pairs(files[reference], files[visit]))
            added = _surface(values, scene.shape)
        for warp in map(read_lsst_warp, files[visit]):
            window = warp.box.slices_in(Box(0, 0, scene.shape[1], scene.shape[0]))
            matched = warp.image + added[window]
            good = np.isfinite(matched)
            total[window][good] += matched[good]
            number[window] += good
        corrections[visit] = added[::STRIDE, ::STRIDE]
    save_corrections(out, corrections)


def _pairs(reference: list[Path], visit: list[Path]) -> Iterator[tuple[Warp, Warp]]:
    of_patch = {path.name.rpartition("_")[2]: path for path in reference}
    for path in visit:
        other = of_patch.get(path.name.rpartition("_")[2])
        if other is not None:
            yield read_lsst_warp(path), read_lsst_warp(other)


def _tract_statistics(
    scene: Scene, warps: Iterator[tuple[Warp, Warp | None]]
) -> NDArray[np.float64]:
    """Return the clipped mean of overlapping windows; every warp looks at every tract bin.

    Of a pair of warps it is that of second − first, under both masks.
    """
    ny, nx = (-(-n // _BIN) for n in scene.shape)
    sums, counts = np.zeros((ny, nx)), np.zeros((ny, nx))
    for warp, other in warps:
        image = warp.image if other is None else other.image - warp.image
        mask = warp.mask if other is None else warp.mask | other.mask
        for j in range(ny):
            for i in range(nx):
                box = Box(i * _BIN, j * _BIN, 2 * _BIN, 2 * _BIN).intersect(warp.box)
                if box.empty:
                    continue
                edges = (np.array([0, box.width]), np.array([0, box.height]))
                window = box.slices_in(warp.box)
                pixels = np.ascontiguousarray(image[window])
                found = bin_statistics(pixels, mask[window].copy(), _BAD, *edges)
                n = float(found.count[0, 0])
                if n > 0.1 * _BIN * _BIN and np.isfinite(found.mean[0, 0]):
                    sums[j, i] += n * found.mean[0, 0]
                    counts[j, i] += n
    with np.errstate(invalid="ignore"):
        values: NDArray[np.float64] = sums / counts
    return values


def _surface(values: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float32]:
    if min(values.shape) < _NODES:
        return np.full(shape, np.nanmedian(values), np.float32)
    filled = np.where(np.isfinite(values), values, np.nanmedian(values))
    background = background_from_values(Box(0, 0, shape[1], shape[0]), filled)
    return np.asarray(background.render().image, np.float32)
