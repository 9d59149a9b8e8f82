"""Boxes, the patch grid of a tract, and its superpixel grid.

Pixel coordinates are tract coordinates: integers at pixel centres, ``(x, y)`` in words and
``[y, x]`` in arrays. Boxes are half-open, ``x0 <= x < x1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.errors import GeometryError

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ("Box", "PatchGrid", "SuperpixelGrid", "SuperpixelWindow", "TractGeometry")


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open rectangle of tract pixels."""

    x0: int
    """First column."""
    y0: int
    """First row."""
    width: int
    """Number of columns (0 for an empty box)."""
    height: int
    """Number of rows (0 for an empty box)."""

    @property
    def x1(self) -> int:
        """One past the last column."""
        return self.x0 + self.width

    @property
    def y1(self) -> int:
        """One past the last row."""
        return self.y0 + self.height

    @property
    def shape(self) -> tuple[int, int]:
        """Array shape, ``(height, width)``."""
        return (self.height, self.width)

    @property
    def empty(self) -> bool:
        """Whether the box holds no pixel."""
        return self.width <= 0 or self.height <= 0

    def intersect(self, other: Box) -> Box:
        """Return the common part (possibly empty)."""
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        x1, y1 = min(self.x1, other.x1), min(self.y1, other.y1)
        return Box(x0, y0, max(x1 - x0, 0), max(y1 - y0, 0))

    def union(self, other: Box) -> Box:
        """Return the smallest box that holds the pixels of both; an empty one holds none."""
        if self.empty or other.empty:
            return other if self.empty else self
        x0, y0 = min(self.x0, other.x0), min(self.y0, other.y0)
        return Box(x0, y0, max(self.x1, other.x1) - x0, max(self.y1, other.y1) - y0)

    def grow(self, pixels: int) -> Box:
        """Return the box grown by ``pixels`` on every side."""
        return Box(
            self.x0 - pixels, self.y0 - pixels, self.width + 2 * pixels, self.height + 2 * pixels
        )

    def contains(self, other: Box) -> bool:
        """Whether ``other`` lies inside this box."""
        return (
            self.x0 <= other.x0
            and self.y0 <= other.y0
            and self.x1 >= other.x1
            and self.y1 >= other.y1
        )

    def slices_in(self, parent: Box) -> tuple[slice, slice]:
        """Return the ``[y, x]`` slices of this box in an array that covers ``parent``.

        Raises
        ------
        GeometryError
            ``box-outside`` when this box is not inside ``parent``.
        """
        if not parent.contains(self):
            raise GeometryError("box-outside", f"{self} is not inside {parent}")
        return (
            slice(self.y0 - parent.y0, self.y1 - parent.y0),
            slice(self.x0 - parent.x0, self.x1 - parent.x0),
        )


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Patches whose inner boxes tile the tract box.

    Patch ``p`` has the index ``p = iy * nx + ix``.
    """

    x0: int
    """First column of the tract box."""
    y0: int
    """First row of the tract box."""
    inner_width: int
    """Columns of a patch's inner box."""
    inner_height: int
    """Rows of a patch's inner box."""
    border: int
    """Pixels by which the outer box exceeds the inner one on each side."""
    nx: int
    """Patches along x."""
    ny: int
    """Patches along y."""

    def __post_init__(self) -> None:
        """Refuse grids that hold nothing."""
        sizes = (self.inner_width, self.inner_height, self.nx, self.ny)
        if min(sizes) < 1 or self.border < 0:
            raise GeometryError(
                "patch-grid-empty",
                f"A patch grid needs positive sizes and a border >= 0, got {self}",
                fix="Set tract.patch_inner, tract.border, tract.width and tract.height.",
            )

    @property
    def tract_box(self) -> Box:
        """All pixels of the tract: the union of the inner boxes."""
        return Box(self.x0, self.y0, self.nx * self.inner_width, self.ny * self.inner_height)

    @property
    def n_patches(self) -> int:
        """Number of patches."""
        return self.nx * self.ny

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Array shape of one stored warp: inner box and a full border all round."""
        return (self.inner_height + 2 * self.border, self.inner_width + 2 * self.border)

    def inner_box(self, patch: int) -> Box:
        """Return the inner box of a patch."""
        iy, ix = divmod(patch, self.nx)
        return Box(
            self.x0 + ix * self.inner_width,
            self.y0 + iy * self.inner_height,
            self.inner_width,
            self.inner_height,
        )

    def plane_box(self, patch: int) -> Box:
        """Return the box that a stored warp covers: the inner box grown, not clipped."""
        return self.inner_box(patch).grow(self.border)

    def outer_box(self, patch: int) -> Box:
        """Return the inner box grown by the border and clipped to the tract."""
        return self.plane_box(patch).intersect(self.tract_box)

    def patches_touching(self, box: Box) -> Iterator[int]:
        """Yield the patches whose outer boxes hold a pixel of ``box``, in order."""
        near = box.intersect(self.tract_box)
        if near.empty:
            return
        grown = near.grow(self.border).intersect(self.tract_box)
        ix0, ix1 = (grown.x0 - self.x0) // self.inner_width, (grown.x1 - 1 - self.x0)
        iy0, iy1 = (grown.y0 - self.y0) // self.inner_height, (grown.y1 - 1 - self.y0)
        for iy in range(iy0, iy1 // self.inner_height + 1):
            for ix in range(ix0, ix1 // self.inner_width + 1):
                yield iy * self.nx + ix


@dataclass(frozen=True, slots=True)
class SuperpixelWindow:
    """The superpixels that one box touches, with their edges clipped to that box."""

    sx0: int
    """Column of the first superpixel in the tract-wide grid."""
    sy0: int
    """Row of the first superpixel in the tract-wide grid."""
    x_edges: NDArray[np.int64]
    """Column edges relative to the box, ``nx + 1`` values from 0 to its width."""
    y_edges: NDArray[np.int64]
    """Row edges relative to the box, ``ny + 1`` values from 0 to its height."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of superpixels, ``(ny, nx)``."""
        return (len(self.y_edges) - 1, len(self.x_edges) - 1)

    @property
    def slices(self) -> tuple[slice, slice]:
        """``[sy, sx]`` slices of the window in a tract-wide superpixel array."""
        ny, nx = self.shape
        return (slice(self.sy0, self.sy0 + ny), slice(self.sx0, self.sx0 + nx))


@dataclass(frozen=True, slots=True)
class SuperpixelGrid:
    """Bins that tile the tract box from its first pixel; the last ones may be narrower."""

    box: Box
    """The tract box."""
    bin_x: int
    """Columns of a superpixel."""
    bin_y: int
    """Rows of a superpixel."""

    def __post_init__(self) -> None:
        """Refuse bins that hold nothing."""
        if self.bin_x < 1 or self.bin_y < 1 or self.box.empty:
            raise GeometryError(
                "superpixel-grid-empty",
                f"Superpixels need a positive size and a non-empty tract, got {self}",
                fix="Set background.bin_size to a positive number of pixels.",
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of superpixels, ``(ny, nx)``."""
        return (-(-self.box.height // self.bin_y), -(-self.box.width // self.bin_x))

    @property
    def x_centres(self) -> NDArray[np.float64]:
        """Tract x of the nodes: centres of *full* superpixels, evenly spaced."""
        first = self.box.x0 + 0.5 * self.bin_x - 0.5
        return first + self.bin_x * np.arange(self.shape[1], dtype=np.float64)

    @property
    def y_centres(self) -> NDArray[np.float64]:
        """Tract y of the nodes: centres of *full* superpixels, evenly spaced."""
        first = self.box.y0 + 0.5 * self.bin_y - 0.5
        return first + self.bin_y * np.arange(self.shape[0], dtype=np.float64)

    def window(self, box: Box) -> SuperpixelWindow:
        """Return the superpixels that ``box`` touches.

        Raises
        ------
        GeometryError
            ``box-outside`` when ``box`` leaves the tract.
        """
        if box.empty or not self.box.contains(box):
            raise GeometryError("box-outside", f"{box} is empty or not inside {self.box}")
        sx0, x_edges = _edges(box.x0 - self.box.x0, box.width, self.bin_x)
        sy0, y_edges = _edges(box.y0 - self.box.y0, box.height, self.bin_y)
        return SuperpixelWindow(sx0, sy0, x_edges, y_edges)


def _edges(start: int, length: int, size: int) -> tuple[int, NDArray[np.int64]]:
    first, last = start // size, (start + length - 1) // size
    edges = np.arange(first, last + 2, dtype=np.int64) * size - start
    return first, np.clip(edges, 0, length)


@dataclass(frozen=True, slots=True)
class TractGeometry:
    """Where the tract lies on the sky and how it is cut."""

    tract: str
    """Label of the tract."""
    band: str
    """Label of the band, empty when unknown."""
    wcs_cards: tuple[tuple[str, str | float | int], ...]
    """FITS WCS cards in tract pixels: FITS pixel 1 is tract pixel 0."""
    patches: PatchGrid
    """The patch grid."""

    def wcs(self, box: Box | None = None) -> WCS:
        """Return the celestial WCS of a box (pixel 0 is its first pixel); default tract pixels."""
        from astropy.io.fits import Header
        from astropy.wcs import WCS

        header = Header(list(self.wcs_cards))
        wcs = WCS(header)
        if box is not None:
            wcs.wcs.crpix = [wcs.wcs.crpix[0] - box.x0, wcs.wcs.crpix[1] - box.y0]
            wcs.pixel_shape = (box.width, box.height)
        return wcs
