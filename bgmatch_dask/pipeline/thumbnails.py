"""Block sums of each coadded patch, small enough that a viewer can put the tract together."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.geometry import Box, SuperpixelGrid, TractGeometry
from bgmatch_dask.numerics.cell_maps import sum_blocks
from bgmatch_dask.pipeline.results import write_arrays
from bgmatch_dask.store import TractStore

__all__ = (
    "BlockSums",
    "TractBlocks",
    "block_sums",
    "read_thumbnail",
    "thumbnail_grid",
    "write_thumbnail",
)

_BLOCKS = 360
"""Blocks on the long side of the tract."""


def thumbnail_grid(geometry: TractGeometry) -> SuperpixelGrid:
    """Return the blocks of the small picture of a tract."""
    box = geometry.patches.tract_box
    step = -(-max(box.shape) // _BLOCKS)
    return SuperpixelGrid(box, step, step)


def block_sums(
    plane: NDArray[Any], grid: SuperpixelGrid, box: Box
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum and the number of the pixels of each block that hold data.

    Parameters
    ----------
    plane
        Pixels of ``box``; those that are not finite hold no data, of integers those that are 0.
    grid
        Blocks of the tract.
    box
        Tract pixels.

    Returns
    -------
    tuple
        Sum and number, of the shape of ``grid.window(box)``.
    """
    window = grid.window(box)
    return sum_blocks(plane, window.y_edges, window.x_edges)


@dataclass(frozen=True, slots=True, eq=False)
class BlockSums:
    """Block sums of the inner box of a patch, gathered from bands of its rows."""

    inner: Box
    """Inner box of the patch."""
    grid: SuperpixelGrid
    """Blocks of the tract."""
    sums: NDArray[np.float64]
    """Sum and number, shape ``(2, ny, nx)``."""

    @classmethod
    def empty(cls, geometry: TractGeometry, patch: int) -> BlockSums:
        """Return the sums of no pixel."""
        grid, inner = thumbnail_grid(geometry), geometry.patches.inner_box(patch)
        return cls(inner, grid, np.zeros((2, *grid.window(inner).shape)))

    def add(self, image: NDArray[Any], box: Box) -> None:
        """Add the pixels of a box that lie in the inner box."""
        part = box.intersect(self.inner)
        if part.empty:
            return
        whole, window = self.grid.window(self.inner), self.grid.window(part)
        y, x = window.sy0 - whole.sy0, window.sx0 - whole.sx0
        ny, nx = window.shape
        # Not a part of the image, whose rows would not lie one after the other.
        y_edges, x_edges = window.y_edges + part.y0 - box.y0, window.x_edges + part.x0 - box.x0
        total, count = sum_blocks(image, y_edges, x_edges)
        self.sums[0, y : y + ny, x : x + nx] += total
        self.sums[1, y : y + ny, x : x + nx] += count


def write_thumbnail(store: TractStore, run: str, patch: int, sums: Mapping[str, BlockSums]) -> None:
    """Store the block sums of the coadds of a patch by name."""
    arrays: dict[str, NDArray[Any]] = {n: s.sums.astype(np.float32) for n, s in sums.items()}
    write_arrays(store, _path(run, patch), arrays)


def read_thumbnail(store: TractStore, run: str, patch: int) -> dict[str, NDArray[np.float32]]:
    """Return (sum, number) of the blocks of a patch, each of shape (2, ny, nx).

    Names: ``matched`` and ``unmatched``.

    Raises
    ------
    StoreError
        ``object-missing`` when the patch is not yet coadded.
    """
    data = store.location.read_bytes(_path(run, patch))
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


@dataclass(slots=True, eq=False)
class TractBlocks:
    """The block sums of a tract, put together patch by patch."""

    store: TractStore
    """The open store."""
    run: str
    """Name of the version of the run's products."""
    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Sum and number by name of coadd, shape ``(2, ny, nx)``."""
    patches: set[int] = field(default_factory=set)
    """The patches so far."""

    def add(self, patch: int) -> None:
        """Add a patch, once.

        Raises
        ------
        StoreError
            ``object-missing`` when it is not yet coadded.
        """
        found = read_thumbnail(self.store, self.run, patch)
        if patch in self.patches:
            return
        geometry = self.store.spec.geometry
        grid = thumbnail_grid(geometry)
        window = grid.window(geometry.patches.inner_box(patch)).slices
        for name, part in found.items():
            sums = self.sums.setdefault(name, np.zeros((2, *grid.shape)))
            sums[(slice(None), *window)] += part
        self.patches.add(patch)

    def means(self) -> dict[str, NDArray[np.float64]]:
        """Return the mean of each block by name of coadd, NaN where there is no data."""
        found = {}
        for name, (total, count) in self.sums.items():
            found[name] = np.full(total.shape, np.nan)
            np.divide(total, count, out=found[name], where=count > 0)
        return found


def _path(run: str, patch: int) -> str:
    return f"runs/{run}/thumbnails/{patch:05d}.npz"
