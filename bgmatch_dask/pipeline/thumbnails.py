"""Block sums of each coadded patch, small enough that a viewer can put the tract together."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.geometry import Box, SuperpixelGrid, TractGeometry
from bgmatch_dask.pipeline.results import write_arrays
from bgmatch_dask.store import TractStore

__all__ = ("block_sums", "read_thumbnail", "thumbnail_grid", "write_thumbnail")

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
    good = np.isfinite(plane) if np.issubdtype(plane.dtype, np.floating) else plane != 0
    values = np.where(good, plane, 0).astype(np.float64)
    y, x = window.y_edges[:-1], window.x_edges[:-1]
    total, count = (
        np.add.reduceat(np.add.reduceat(part, y, axis=0), x, axis=1)
        for part in (values, good.astype(np.float64))
    )
    return total, count


def write_thumbnail(
    store: TractStore, run: str, patch: int, images: Mapping[str, NDArray[Any]]
) -> None:
    """Store the block sums of the inner box of a patch; images are of its outer box."""
    patches = store.spec.geometry.patches
    inner, grid = patches.inner_box(patch), thumbnail_grid(store.spec.geometry)
    window = inner.slices_in(patches.outer_box(patch))
    arrays: dict[str, NDArray[Any]] = {}
    for name, image in images.items():
        total, count = block_sums(image[window], grid, inner)
        arrays |= {name: np.stack([total, count]).astype(np.float32)}
    write_arrays(store, _path(run, patch), arrays)


def read_thumbnail(store: TractStore, run: str, patch: int) -> dict[str, NDArray[np.float32]]:
    """Return (sum, number) of the blocks of a patch by name of coadd, each of shape (2, ny, nx).

    Raises
    ------
    StoreError
        ``object-missing`` when the patch is not yet coadded.
    """
    data = store.location.read_bytes(_path(run, patch))
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _path(run: str, patch: int) -> str:
    return f"runs/{run}/thumbnails/{patch:05d}.npz"
