"""Find the patch grid from the boxes of warps.

Warps do not say how large the inner box of a patch is. Neighbouring outer boxes overlap by
twice the border, and the boundary of two inner boxes lies in the middle of that overlap; tract
boxes of LSST sky maps start at a multiple of the inner size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from bgmatch_dask.config import TractConfig
from bgmatch_dask.errors import GeometryError
from bgmatch_dask.geometry import Box, PatchGrid

__all__ = ("infer_patches",)

_KNOWN = ((4000, 100), (3000, 200))
"""Inner size and border of the two LSST tract builders, for tracts of one patch."""


def infer_patches(boxes: Sequence[Box], config: TractConfig) -> PatchGrid:
    """Return the smallest patch grid whose outer boxes are those of the warps.

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
    x = _axis(sorted({(b.x0, b.x1) for b in boxes}), config, 0)
    y = _axis(sorted({(b.y0, b.y1) for b in boxes}), config, 1)
    if x is None and y is None:
        raise _unclear(boxes)
    border = (x or y or (0, 0, 0, 0))[3]
    x = x or _single(boxes, border, horizontal=True)
    y = y or _single(boxes, border, horizontal=False)
    return PatchGrid(x[0], y[0], x[1], y[1], border, x[2], y[2])


def _axis(
    spans: list[tuple[int, int]], config: TractConfig, axis: int
) -> tuple[int, int, int, int] | None:
    """Return (first inner pixel, inner size, number of patches, border) along one axis."""
    inner = config.patch_inner
    if inner is not None and config.border is not None:
        size = inner if isinstance(inner, int) else inner[axis]
        return _whole(spans, size, config.border)
    boundaries = {(a1 + b0) // 2: (a1 - b0) // 2 for (_, a1), (b0, _) in pairwise(spans) if b0 < a1}
    if not boundaries:
        return _known(spans) if len(spans) == 1 else None
    border = max(boundaries.values())
    size = _inner_size(sorted(boundaries), spans, border)
    return _whole(spans, size, border)


def _inner_size(boundaries: list[int], spans: list[tuple[int, int]], border: int) -> int:
    gaps = [b - a for a, b in pairwise(boundaries)]
    if gaps:
        return min(gaps)
    # With one boundary the lower patch tells: it is clipped at the tract's edge, or not.
    start = spans[0][0]
    return boundaries[0] - (start if start == 0 else start + border)


def _whole(spans: list[tuple[int, int]], size: int, border: int) -> tuple[int, int, int, int]:
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


def _known(spans: list[tuple[int, int]]) -> tuple[int, int, int, int] | None:
    lo, hi = spans[0]
    for size, border in _KNOWN:
        if hi - lo in {size + 2 * border, size + border, size}:
            return _whole(spans, size, border)
    return None


def _single(boxes: Sequence[Box], border: int, *, horizontal: bool) -> tuple[int, int, int, int]:
    """Return the axis of a tract that is one patch wide: clipped at 0, or with full borders."""
    spans = {(b.x0, b.x1) if horizontal else (b.y0, b.y1) for b in boxes}
    if len(spans) != 1:
        raise _unclear(boxes)
    lo, hi = spans.pop()
    if lo == 0:
        return 0, hi, 1, border
    return lo + border, hi - lo - 2 * border, 1, border


def _unclear(boxes: Sequence[Box]) -> GeometryError:
    return GeometryError(
        "patches-unclear",
        f"The patch grid cannot be told from {len(set(boxes))} box(es)",
        fix="Set tract.patch_inner and tract.border.",
    )
