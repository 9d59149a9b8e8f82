"""Find the patch grid from the boxes of warps.

Warps do not say how large the inner box of a patch is. Neighbouring outer boxes overlap by
twice the border, and the boundary of two inner boxes lies in the middle of that overlap; tract
boxes of LSST sky maps start at a multiple of the inner size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

from bgmatch_dask.config import TractConfig
from bgmatch_dask.errors import GeometryError
from bgmatch_dask.geometry import Box, PatchGrid

__all__ = ("GROWTH", "infer_patches", "settle_patches")

GROWTH = 256
"""Pixels by which LSST's direct warps go beyond the outer box of their patch, on each side."""

_MAX_ODD = 1 / 3
"""Largest share of warps that may be left out to make sense of the others."""
_MAX_TRIES = 16

_KNOWN = ((4000, 100), (3000, 200))
"""Inner size and border of the two LSST tract builders, for patches without neighbours."""

Spans = list[tuple[int, int]]
"""First pixel and one past the last of all boxes along one axis, sorted and different."""

Axis = tuple[int, int, int, int]
"""First inner pixel, inner size, number of patches, border."""


def infer_patches(boxes: Sequence[Box], config: TractConfig) -> PatchGrid:
    """Return the smallest patch grid whose outer boxes are those of the warps.

    Warps that all go `GROWTH` beyond their outer boxes are known for what they are, so that the
    border is that of the patches.

    Parameters
    ----------
    boxes
        Boxes of all warps in tract pixels.
    config
        ``patch_inner`` and ``border``, when set, are taken instead of the inferred values.

    Raises
    ------
    GeometryError
        ``patches-unclear`` when the boxes do not settle the grid.
    """
    shrunk = [box.grow(-GROWTH) for box in boxes]
    may_be_grown = all(box.width > 0 and box.height > 0 for box in shrunk)
    try:
        plain = _infer(boxes, config)
    except GeometryError:
        if not may_be_grown:
            raise
        small = _infer(shrunk, config)
        # A warp holds at least the inner box of its patch.
        if any(b.width < small.inner_width or b.height < small.inner_height for b in shrunk):
            raise
        return small
    if may_be_grown and plain.border > GROWTH and config.border is None:
        with suppress(GeometryError):
            small = _infer(shrunk, config)
            if small.inner_width == plain.inner_width and small.inner_height == plain.inner_height:
                return small
    return plain


def settle_patches(boxes: Sequence[Box], config: TractConfig) -> tuple[PatchGrid, frozenset[Box]]:
    """Return the patch grid, and the boxes of few warps that fit no patch of it.

    Raises
    ------
    GeometryError
        ``patches-unclear`` when the boxes do not settle the grid, or too many do not fit.
    """
    try:
        return infer_patches(boxes, config), frozenset()
    except GeometryError as error:
        first = error
    counts = Counter(boxes)
    # The rarest first; among equals the order of the boxes decides, not that of the files.
    rare = sorted(counts, key=lambda b: (counts[b], b.x0, b.y0, b.width, b.height))
    odd: frozenset[Box] = frozenset()
    for _ in range(_MAX_TRIES):
        for candidate in rare:
            left_out = odd | {candidate}
            kept = [box for box in boxes if box not in left_out]
            if len(kept) < len(boxes) * (1 - _MAX_ODD):
                continue
            with suppress(GeometryError):
                return infer_patches(kept, config), left_out
        if not rare:
            break
        odd |= {rare.pop(0)}
    raise first


def _infer(boxes: Sequence[Box], config: TractConfig) -> PatchGrid:
    columns = sorted({(b.x0, b.x1) for b in boxes})
    rows = sorted({(b.y0, b.y1) for b in boxes})
    x, y = _axis(columns, config, 0), _axis(rows, config, 1)
    if x is None and y is None:
        x, y = _known(columns, rows)
    if x is None and y is not None:
        x = _from_other(columns, y)
    if y is None and x is not None:
        y = _from_other(rows, x)
    if x is None or y is None or x[3] != y[3]:
        raise _unclear(boxes)
    return PatchGrid(x[0], y[0], x[1], y[1], x[3], x[2], y[2])


def _axis(spans: Spans, config: TractConfig, axis: int) -> Axis | None:
    """Return one axis from the sizes that are given, or from neighbours that overlap."""
    inner = config.patch_inner
    if inner is not None and config.border is not None:
        size = inner if isinstance(inner, int) else inner[axis]
        return _whole(spans, size, config.border)
    boundaries = {(a1 + b0) // 2: (a1 - b0) // 2 for (_, a1), (b0, _) in pairwise(spans) if b0 < a1}
    if not boundaries:
        return None
    border = max(boundaries.values())
    # The longest box has both its borders, or lies at an end of the tract and is clipped there.
    longest = max(hi - lo for lo, hi in spans)
    for size in (longest - 2 * border, longest - border, longest):
        if size > 0 and all(b % size == 0 for b in boundaries) and _fits(spans, size, border):
            return _whole(spans, size, border)
    return None


def _fits(spans: Spans, size: int, border: int) -> bool:
    """Whether all spans are those of patches, each end with its border or clipped to the inner."""
    for lo, hi in spans:
        start = (lo + hi) // 2 // size * size
        if start - lo not in {0, border} or hi - start - size not in {0, border}:
            return False
    return True


def _whole(spans: Spans, size: int, border: int) -> Axis:
    # The middle of a box lies in its inner box, clipped or not.
    cells = [((lo + hi) // 2) // size for lo, hi in spans]
    first, last = min(cells), max(cells)
    for (lo, hi), cell in zip(spans, cells, strict=True):
        outer = (cell * size - border, (cell + 1) * size + border)
        if lo < outer[0] or hi > outer[1]:
            raise GeometryError(
                "patches-unclear",
                f"A warp spans {lo}:{hi}, the patch there {outer[0]}:{outer[1]}",
                fix="Set tract.patch_inner and tract.border.",
            )
    return first * size, size, last - first + 1, border


def _known(columns: Spans, rows: Spans) -> tuple[Axis, Axis] | tuple[None, None]:
    """Return both axes of patches without neighbours that a known tract builder made."""
    for size, border in _KNOWN:
        if _fits(columns, size, border) and _fits(rows, size, border):
            return _whole(columns, size, border), _whole(rows, size, border)
    return None, None


def _from_other(spans: Spans, other: Axis) -> Axis | None:
    """Return an axis without neighbours: of square patches, or one patch wide.

    A single patch is clipped at 0 on both ends, or has full borders.
    """
    _, size, _, border = other
    if _fits(spans, size, border):
        return _whole(spans, size, border)
    if len(spans) != 1:
        return None
    lo, hi = spans[0]
    if lo == 0:
        return 0, hi, 1, border
    return lo + border, hi - lo - 2 * border, 1, border


def _unclear(boxes: Sequence[Box]) -> GeometryError:
    return GeometryError(
        "patches-unclear",
        f"The patch grid cannot be told from {len(set(boxes))} box(es)",
        fix="Set tract.patch_inner and tract.border.",
    )
