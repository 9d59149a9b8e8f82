"""A model of what the upstream task does and costs, written from its description.

Per warp it reads the pixels three times (cost of the reference, difference, matched warp), goes
over every bin of the *tract* in a Python loop each time, measures windows two bins wide that step
by one bin, and fills the tract by a spline through the bins of the one reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.scene import STRIDE, Scene, save_corrections
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.gridded import background_from_values
from bgmatch_dask.numerics.superpixels import bin_statistics

__all__ = ("run_upstream",)

_BIN = 128
_NODES = 5
"""Bins that the spline needs on each axis."""
Image = NDArray[np.float32]


def run_upstream(folder: str, out: str, patch: int) -> None:
    """Match a scene as upstream does, patch by patch, and stack it by the mean."""
    scene = Scene(Path(folder))
    height, width = scene.shape
    patches = [
        (y, x, min(patch, height - y), min(patch, width - x))
        for y in range(0, height, patch)
        for x in range(0, width, patch)
    ]
    for visit in scene.visits:
        _tract_statistics(scene, visit, None, patches)
    reference = scene.visits[0]
    corrections: dict[str, NDArray[Any]] = {}
    total, number = np.zeros(scene.shape), np.zeros(scene.shape, np.int32)
    for visit in scene.visits:
        added = np.zeros(scene.shape, np.float32)
        if visit != reference:
            values = _tract_statistics(scene, visit, reference, patches)
            added = _surface(values, scene.shape)
        matched = scene.image(visit) + added
        good = np.isfinite(matched)
        total[good] += matched[good]
        number += good
        corrections[visit] = added[::STRIDE, ::STRIDE]
    save_corrections(out, corrections)


def _tract_statistics(
    scene: Scene, visit: str, reference: str | None, patches: list[tuple[int, int, int, int]]
) -> NDArray[np.float64]:
    """Return the clipped mean of overlapping windows; every patch looks at every tract bin."""
    image = scene.image(visit)
    if reference is not None:
        image = scene.image(reference) - image
    ny, nx = (-(-n // _BIN) for n in scene.shape)
    sums, counts = np.zeros((ny, nx)), np.zeros((ny, nx))
    for y, x, rows, columns in patches:
        part = np.ascontiguousarray(image[y : y + rows, x : x + columns])
        mask = np.zeros(part.shape, np.int32)
        for j in range(ny):
            for i in range(nx):
                box = _window(j, i, y, x, rows, columns)
                if box is None:
                    continue
                top, bottom, left, right = box
                edges = (np.array([0, right - left]), np.array([0, bottom - top]))
                pixels = np.ascontiguousarray(part[top:bottom, left:right])
                found = bin_statistics(pixels, mask[top:bottom, left:right].copy(), 1, *edges)
                n = float(found.count[0, 0])
                if n > 0.1 * _BIN * _BIN and np.isfinite(found.mean[0, 0]):
                    sums[j, i] += n * found.mean[0, 0]
                    counts[j, i] += n
    with np.errstate(invalid="ignore"):
        values: NDArray[np.float64] = sums / counts
    return values


def _window(
    j: int, i: int, y: int, x: int, rows: int, columns: int
) -> tuple[int, int, int, int] | None:
    top, left = j * _BIN - y, i * _BIN - x
    bottom, right = min(top + 2 * _BIN, rows), min(left + 2 * _BIN, columns)
    top, left = max(top, 0), max(left, 0)
    return (top, bottom, left, right) if bottom > top and right > left else None


def _surface(values: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float32]:
    if min(values.shape) < _NODES:
        return np.full(shape, np.nanmedian(values), np.float32)
    filled = np.where(np.isfinite(values), values, np.nanmedian(values))
    background = background_from_values(Box(0, 0, shape[1], shape[0]), filled)
    return np.asarray(background.render().image, np.float32)
