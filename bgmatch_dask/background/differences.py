"""Differences of the visits of one patch, measured in one of two ways.

``pixel`` holds the hubs' pixels, reads every other visit once, and measures each pair under the
union of its two masks. ``common_mask`` first unites the detections of all visits, then reads every
visit once, keeps its means in small cells, and takes all differences from those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.cells import (
    CellGrid,
    CellMeans,
    difference_of_cells,
    measure_cells,
    outliers_of_cells,
)
from bgmatch_dask.background.outliers import CELL, outliers_of_pixels
from bgmatch_dask.background.superpixels import SuperpixelSums, measure_difference
from bgmatch_dask.background.visits import Visit, sorted_visits
from bgmatch_dask.geometry import Box, SuperpixelGrid
from bgmatch_dask.maskplanes import DETECTIONS, bits_of
from bgmatch_dask.numerics.cell_maps import blank_bad_pixels, cells_of, take_good_pixels

__all__ = (
    "DifferenceMethod",
    "DifferenceSettings",
    "PatchDifferences",
    "Piece",
    "PixelDifference",
    "Pixels",
    "WarpReader",
    "measure_patch",
    "subtract_pixels",
)

DifferenceMethod: TypeAlias = Literal["pixel", "common_mask"]
"""How differences are measured."""

Pair: TypeAlias = tuple[Visit, Visit]
Bools = NDArray[np.bool_]

_SOURCES = bits_of(DETECTIONS)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some pixels of a visit, as they are best read together."""

    image: NDArray[np.float32]
    """``[y, x]``, C order."""
    mask: NDArray[np.int32]
    """Mask of the same pixels."""
    first: tuple[int, int]
    """Row and column of the first pixel that lies on the box."""
    window: tuple[slice, slice]
    """Rows and columns of the box that the piece gives."""


class WarpReader(Protocol):
    """Gives the pixels of one patch; every pixel of every plane is asked for at most once."""

    def pieces(self, visit: Visit) -> Iterator[Piece]:
        """Yield image and mask of a visit: all pixels of the box; each holds until the next."""
        ...

    def image(self, visit: Visit) -> NDArray[np.float32]:
        """Return the image of a visit over the box, ``[y, x]``, to be changed."""
        ...

    def mask(self, visit: Visit) -> NDArray[np.int32]:
        """Return the mask of a visit over the same box."""
        ...


@dataclass(frozen=True, slots=True)
class DifferenceSettings:
    """How differences are measured."""

    method: DifferenceMethod
    """The way."""
    bad_bits: int
    """Mask bits whose pixels are left out; detections among them are shared by `common_mask`."""
    n_sigma: float = 3.0
    """Clipping threshold in sigma."""
    n_iter: int = 3
    """Iterations of the clipping."""
    outlier_sigma: float | None = 4.0
    """Threshold of outlier footprints, or None."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchDifferences:
    """What was measured on one patch."""

    sums: Mapping[Pair, SuperpixelSums]
    """Sums of hub − visit, by (hub, visit)."""
    outliers: Mapping[Visit, Bools]
    """Cells where a visit stands out, by visit; without those that show nothing."""
    x_edges: NDArray[np.int64]
    """Column edges of the cells, relative to the box."""
    y_edges: NDArray[np.int64]
    """Row edges of the cells."""


def measure_patch(
    pairs: Sequence[Pair],
    reader: WarpReader,
    box: Box,
    grid: SuperpixelGrid,
    settings: DifferenceSettings,
) -> PatchDifferences:
    """Measure hub − visit for the pairs of one patch.

    Parameters
    ----------
    pairs
        (hub, visit), each unordered pair once.
    reader
        Gives the pixels.
    box
        Tract pixels that are counted: the inner box of the patch.
    grid
        Superpixels of the tract.
    settings
        The way, masks and thresholds.

    Returns
    -------
    PatchDifferences
        Sums of every pair, of the shape of ``grid.window(box)``, and outlier cells.
    """
    return _METHODS[settings.method](pairs, reader, box, grid, settings)


@dataclass(slots=True)
class _Votes:
    """Says which of two visits an outlier belongs to: the one that stands out of most others."""

    against: dict[Visit, NDArray[np.int32]] = field(default_factory=dict)
    judged: dict[Visit, NDArray[np.int32]] = field(default_factory=dict)

    def add(self, pair: Pair, outlier: Bools, seen: Bools) -> None:
        for visit in pair:
            for table, values in ((self.against, outlier & seen), (self.judged, seen)):
                table[visit] = table.get(visit, 0) + values.astype(np.int32)

    def verdict(self) -> dict[Visit, Bools]:
        """Return the cells in which more than half of a visit's differences stand out."""
        found = {v: 2 * self.against[v] > self.judged[v] for v in sorted_visits(self.against)}
        return {visit: cells for visit, cells in found.items() if cells.any()}


def _pixel(
    pairs: Sequence[Pair],
    reader: WarpReader,
    box: Box,
    grid: SuperpixelGrid,
    settings: DifferenceSettings,
) -> PatchDifferences:
    bits, hubs = settings.bad_bits, sorted_visits({hub for hub, _ in pairs})
    held = {hub: Pixels.read(reader, hub, box, bits) for hub in hubs}
    sums: dict[Pair, SuperpixelSums] = {}
    votes = _Votes()
    for visit in sorted_visits({visit for _, visit in pairs}):
        pixels = held.get(visit) or Pixels.read(reader, visit, box, bits)
        for hub in sorted_visits(h for h, v in pairs if v == visit):
            found = subtract_pixels(held[hub], pixels, box, grid, settings)
            sums[hub, visit] = found.sums
            if found.cells is not None and found.seen is not None:
                votes.add((hub, visit), found.cells, found.seen)
    edges = [np.append(np.arange(0, n, CELL), n) for n in (box.width, box.height)]
    return PatchDifferences({p: sums[p] for p in pairs}, votes.verdict(), edges[0], edges[1])


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """The good pixels of one visit on a box."""

    image: NDArray[np.float32]
    """``[y, x]``, unit of the image; NaN where a pixel is not to be used."""
    seen: Bools
    """Cells of `CELL`² pixels that hold a good one, shape ``(cy, cx)``."""

    @classmethod
    def of(
        cls, image: NDArray[np.float32], mask: NDArray[np.int32] | None, bad_bits: int
    ) -> Pixels:
        """Blank the bad pixels of an image, which may be changed. No mask is held."""
        own = np.require(image, np.float32, ["C", "W", "A"])
        seen = np.zeros(cells_of(own.shape), bool)
        blank_bad_pixels(own, mask, bad_bits, seen)
        return cls(own, seen)

    @classmethod
    def read(cls, reader: WarpReader, visit: Visit, box: Box, bad_bits: int) -> Pixels:
        """Read a visit, whose mask is never held as a whole."""
        image, seen = np.empty(box.shape, np.float32), np.zeros(cells_of(box.shape), bool)
        for piece in reader.pieces(visit):
            part = (piece.image, piece.mask)
            take_good_pixels(part, piece.first, bad_bits, piece.window, image, seen)
        return cls(image, seen)


@dataclass(frozen=True, slots=True, eq=False)
class PixelDifference:
    """The difference of two visits on a box."""

    sums: SuperpixelSums
    """Sums of hub − visit."""
    cells: Bools | None
    """Cells that stand out, where outliers are looked for."""
    seen: Bools | None
    """Cells that could be judged."""


def subtract_pixels(
    hub: Pixels, visit: Pixels, box: Box, grid: SuperpixelGrid, settings: DifferenceSettings
) -> PixelDifference:
    """Measure hub − visit on what is good in both, without outliers if they are looked for.

    Parameters
    ----------
    hub, visit
        Pixels of both on the same box.
    box, grid, settings
        As for `measure_patch`.
    """
    both = hub.seen & visit.seen
    cells = judged = None
    left_out = ~both
    if settings.outlier_sigma is not None:
        cells, judged = outliers_of_pixels(
            hub.image, visit.image, both, n_sigma=settings.outlier_sigma
        )
        left_out |= cells
    sums = measure_difference(
        hub.image,
        None,
        visit.image,
        None,
        box,
        grid,
        0,
        n_sigma=settings.n_sigma,
        n_iter=settings.n_iter,
        left_out=left_out,
    )
    return PixelDifference(sums, cells, judged)


def _common_mask(
    pairs: Sequence[Pair],
    reader: WarpReader,
    box: Box,
    grid: SuperpixelGrid,
    settings: DifferenceSettings,
) -> PatchDifferences:
    visits = sorted_visits({visit for pair in pairs for visit in pair})
    cells = CellGrid.of(grid, box, CELL)
    means = _means_under_one_mask(visits, reader, box, cells, settings)
    sums: dict[Pair, SuperpixelSums] = {}
    votes = _Votes()
    for hub, visit in pairs:
        left_out = None
        if settings.outlier_sigma is not None:
            left_out = outliers_of_cells(means[hub], means[visit], settings.outlier_sigma)
            votes.add((hub, visit), left_out, (means[hub].count > 0) & (means[visit].count > 0))
        sums[hub, visit] = difference_of_cells(means[hub], means[visit], cells, left_out)
    return PatchDifferences(sums, votes.verdict(), cells.x_edges, cells.y_edges)


def _means_under_one_mask(
    visits: Iterable[Visit],
    reader: WarpReader,
    box: Box,
    cells: CellGrid,
    settings: DifferenceSettings,
) -> dict[Visit, CellMeans]:
    sources = np.zeros(box.shape, bool)
    own: dict[Visit, NDArray[np.uint8]] = {}
    for visit in visits:
        mask = reader.mask(visit)
        sources |= (mask & settings.bad_bits & _SOURCES) != 0
        # One bit per pixel is held, so that no mask is read twice.
        own[visit] = np.packbits((mask & settings.bad_bits) != 0)
    means = {}
    for visit, packed in own.items():
        bad = np.unpackbits(packed, count=sources.size).reshape(box.shape).view(bool)
        means[visit] = measure_cells(
            reader.image(visit),
            bad | sources,
            cells,
            n_sigma=settings.n_sigma,
            n_iter=settings.n_iter,
        )
    return means


_Method: TypeAlias = Callable[
    [Sequence[Pair], WarpReader, Box, SuperpixelGrid, DifferenceSettings], PatchDifferences
]
_METHODS: Mapping[DifferenceMethod, _Method] = {"pixel": _pixel, "common_mask": _common_mask}
