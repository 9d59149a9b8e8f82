"""Small pictures of a whole tract: block means of a coadd, read one patch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.errors import StoreError
from bgmatch_dask.geometry import SuperpixelGrid, TractGeometry
from bgmatch_dask.pipeline.thumbnails import TractBlocks, block_sums, thumbnail_grid
from bgmatch_dask.store import TractStore

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ("MAX_PIXELS", "Mosaic", "bin_mosaic", "binned_wcs", "coadd_mosaics")

MAX_PIXELS = 1000
"""Pixels on the long side of a mosaic."""


@dataclass(frozen=True, slots=True, eq=False)
class Mosaic:
    """Block means of one plane over the whole tract."""

    values: NDArray[np.float64]
    """Mean of the pixels of each block that hold data, shape (ny, nx); NaN where none does."""
    step: int
    """Tract pixels on the side of a block."""
    geometry: TractGeometry
    """The tract; the first block starts at the first pixel of its box."""

    @property
    def wcs(self) -> WCS:
        """The celestial WCS of the blocks."""
        return binned_wcs(self.geometry, self.step)


def bin_mosaic(store: TractStore, path: str, max_pixels: int = MAX_PIXELS) -> Mosaic:
    """Average a (patch, y, x) array in square blocks over the tract.

    Every tract pixel is counted once (inner boxes), also in a block that straddles patches. The
    planes are read one patch after the other, so memory is that of one patch and the mosaic.

    Parameters
    ----------
    store
        The open store.
    path
        Path of the array, e.g. ``coadd/main_matched/image``.
    max_pixels
        Largest number of blocks on the long side.

    Returns
    -------
    Mosaic
        In the unit of the array. Pixels that are not finite hold no data; of integer arrays
        (nImage) zeros hold none.

    Raises
    ------
    StoreError
        ``array-missing`` when there is no such array.
    """
    geometry = store.spec.geometry
    patches = geometry.patches
    step = -(-max(patches.tract_box.shape) // max_pixels)
    grid = SuperpixelGrid(patches.tract_box, step, step)
    total, count = np.zeros(grid.shape), np.zeros(grid.shape)
    for patch in range(patches.n_patches):
        inner = patches.inner_box(patch)
        pixels = store.read_patch_plane(path, patch, inner)
        part_total, part_count = block_sums(pixels, grid, inner)
        window = grid.window(inner).slices
        total[window] += part_total
        count[window] += part_count
    values = np.full(grid.shape, np.nan)
    np.divide(total, count, out=values, where=count > 0)
    return Mosaic(values, step, geometry)


def coadd_mosaics(store: TractStore, run: str) -> dict[str, Mosaic]:
    """Return the ``matched`` and the ``unmatched`` coadd from the block sums of a run.

    Parameters
    ----------
    store
        The open store.
    run
        Name of the version of the run's products.

    Returns
    -------
    dict
        Mosaics by name, without those of which no patch has block sums.
    """
    geometry = store.spec.geometry
    blocks = TractBlocks(store, run)
    for patch in range(geometry.patches.n_patches):
        try:
            blocks.add(patch)
        except StoreError as error:
            # A patch without warps has no coadd.
            if error.code != "object-missing":
                raise
    step = thumbnail_grid(geometry).bin_x
    return {name: Mosaic(means, step, geometry) for name, means in blocks.means().items()}


def binned_wcs(geometry: TractGeometry, step: int) -> WCS:
    """Return the celestial WCS of square blocks that start at the first pixel of the tract.

    Parameters
    ----------
    geometry
        The tract.
    step
        Tract pixels on the side of a block.

    Returns
    -------
    WCS
        Integers at the centres of blocks. An edge at FITS pixel ``p`` lies at
        ``(p − 0.5) / step + 0.5``, which leaves the edges of the first block in place.
    """
    wcs = geometry.wcs(geometry.patches.tract_box)
    wcs.wcs.crpix = (wcs.wcs.crpix - 0.5) / step + 0.5
    if wcs.wcs.has_cd():
        wcs.wcs.cd = wcs.wcs.cd * step
    else:
        wcs.wcs.cdelt = wcs.wcs.cdelt * step
    # The shape belongs to the tract's pixels; nobody may take it for that of the blocks.
    wcs.pixel_shape = None
    return wcs
