"""Contact sheets of the offsets: one small map of superpixels per visit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from numpy.typing import NDArray

from bgmatch_dask.background.solution import Flag
from bgmatch_dask.report.canvas import FONT, INK, blank, plain_label, png

__all__ = ("PER_SHEET", "OffsetMap", "offset_sheets", "sigma_sheets", "symmetric_limit")

PER_SHEET = 24
"""Most visits on one sheet."""
_COLUMNS = 6
_WIDTH, _LEFT, _FOOT = 11.0, 0.7, 1.2
_GAP_X, _GAP_Y = 0.4, 0.72
_HATCH = "#59636e"
_BLANK = "#c4c4c4"


@dataclass(frozen=True, slots=True, eq=False)
class OffsetMap:
    """The offset of one visit on the superpixels."""

    visit: str
    """Label of the visit."""
    values: NDArray[np.float64]
    """Offset, shape (sy, sx) [image unit]."""
    flags: NDArray[np.uint8]
    """Bits of `Flag`, same shape."""
    covered: NDArray[np.bool_]
    """Superpixels where the visit has pixels, same shape."""
    sigma: NDArray[np.float64] | None = None
    """Standard error of the offset, same shape [image unit]."""

    @property
    def level(self) -> float:
        """Median over the superpixels that are covered [image unit]; NaN if there is none."""
        values = self.values[self.covered & np.isfinite(self.values)]
        return float(np.median(values)) if values.size else float("nan")

    @property
    def shape(self) -> NDArray[np.float64]:
        """Offset minus its level, NaN where the visit has no pixels [image unit]."""
        return np.where(self.covered, self.values - self.level, np.nan)


def symmetric_limit(maps: Sequence[OffsetMap]) -> float:
    """Return the limit ± that shows the shapes of all maps: 98 % of the covered superpixels."""
    parts = [np.abs(m.shape[m.covered & np.isfinite(m.values)]) for m in maps]
    values = np.concatenate(parts) if parts else np.empty(0)
    limit = float(np.percentile(values, 98.0)) if values.size else 0.0
    return limit or 1.0


def offset_sheets(maps: Sequence[OffsetMap], unit: str) -> Iterator[bytes]:
    """Draw the offsets of all visits, at most `PER_SHEET` on a sheet, one colour scale for all.

    The level of each visit is in its title, so that the map shows the shape. All maps show as
    many superpixels, around the ones that the visit covers; those beyond the measured ones are
    hatched.

    Parameters
    ----------
    maps
        Offsets in the order of the visit axis.
    unit
        Unit of the image.
    """
    limit = symmetric_limit(maps)
    panels = [_Panel(m, m.shape, f"{m.level:+.4g}") for m in maps]
    label = f"offset − its median [{plain_label(unit)}]"
    yield from _sheets(panels, _Colours("RdBu_r", -limit, limit, label))


def sigma_sheets(maps: Sequence[OffsetMap], unit: str) -> Iterator[bytes]:
    """Draw the standard errors of the offsets in the same way; visits without one are left out.

    The median over the superpixels of the visit is in the title.
    """
    panels = []
    for item in maps:
        if item.sigma is not None:
            values = np.where(item.covered, item.sigma, np.nan)
            known = values[np.isfinite(values)]
            panels.append(
                _Panel(item, values, f"median {np.median(known):.2g}" if known.size else "")
            )
    parts = [p.values[np.isfinite(p.values)] for p in panels]
    known = np.concatenate(parts) if parts else np.empty(0)
    high = float(np.percentile(known, 98.0)) if known.size else 0.0
    label = f"standard error of the offset [{plain_label(unit)}]"
    yield from _sheets(panels, _Colours("cividis", 0.0, high or 1.0, label))


@dataclass(frozen=True, slots=True, eq=False)
class _Panel:
    """What is drawn of one visit."""

    item: OffsetMap
    values: NDArray[np.float64]
    title: str


@dataclass(frozen=True, slots=True)
class _Colours:
    """One colour scale for all panels."""

    cmap: str
    low: float
    high: float
    label: str


def _sheets(panels: Sequence[_Panel], colours: _Colours) -> Iterator[bytes]:
    view = _view_shape([panel.item for panel in panels])
    for first in range(0, len(panels), PER_SHEET):
        yield _sheet(panels[first : first + PER_SHEET], colours, view)


def _view_shape(maps: Sequence[OffsetMap]) -> tuple[int, int]:
    """Return how many rows and columns a map shows: the largest extent of a visit, and a rim."""
    extents = [_extent(item.covered) for item in maps]
    ny = max((y1 - y0 for y0, y1, _, _ in extents), default=1)
    nx = max((x1 - x0 for _, _, x0, x1 in extents), default=1)
    return ny + 2, nx + 2


def _extent(covered: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    ys, xs = (np.flatnonzero(covered.any(axis=axis)) for axis in (1, 0))
    if not ys.size:
        return 0, 0, 0, 0
    return int(ys[0]), int(ys[-1]) + 1, int(xs[0]), int(xs[-1]) + 1


@dataclass(frozen=True, slots=True)
class _Panels:
    """Places of the maps on a sheet [inch], fixed: laying out many axes to fit takes seconds."""

    columns: int
    rows: int
    panel: float

    @property
    def height(self) -> float:
        return self.rows * (self.panel + _GAP_Y) + _FOOT

    @property
    def colour_bar(self) -> tuple[float, float, float, float]:
        return (_LEFT / _WIDTH, 0.5 / self.height, 1 - 1.5 * _LEFT / _WIDTH, 0.14 / self.height)

    def place(self, i: int) -> tuple[float, float, float, float]:
        row, column = divmod(i, self.columns)
        cell = (_WIDTH - _LEFT) / self.columns
        bottom = _FOOT + (self.rows - 1 - row) * (self.panel + _GAP_Y)
        left = _LEFT + column * cell
        size = ((cell - _GAP_X) / _WIDTH, self.panel / self.height)
        return (left / _WIDTH, bottom / self.height, *size)


def _sheet(maps: Sequence[_Panel], colours: _Colours, view: tuple[int, int]) -> bytes:
    rows = -(-len(maps) // _COLUMNS)
    columns = max(-(-len(maps) // rows), 3)
    width = (_WIDTH - _LEFT) / columns - _GAP_X
    panels = _Panels(columns, rows, float(np.clip(width * view[0] / view[1], 0.8, 4.5)))
    figure = blank(_WIDTH, panels.height, fit=False)
    for i, item in enumerate(maps):
        ax = figure.add_axes(panels.place(i))
        image = _draw(ax, item, colours, view)
        left, below = i % columns == 0, i + columns >= len(maps)
        ax.tick_params(labelsize=FONT - 2)
        ax.set_xlabel("superpixel column" if below else "", fontsize=FONT - 1)
        ax.set_ylabel("superpixel row" if left else "", fontsize=FONT - 1)
    place = figure.add_axes(panels.colour_bar)
    bar = figure.colorbar(image, cax=place, orientation="horizontal", extend="both")
    place.tick_params(labelsize=FONT)
    bar.set_label(
        f"{colours.label}; hatched: extrapolated; grey: the visit has no pixels",
        fontsize=FONT,
        parse_math=False,
    )
    return png(figure)


def _draw(ax: Axes, panel: _Panel, colours: _Colours, view: tuple[int, int]) -> Any:  # noqa: ANN401
    item = panel.item
    ax.set_facecolor(_BLANK)
    image = ax.imshow(
        np.ma.masked_invalid(panel.values),
        origin="lower",
        cmap=colours.cmap,
        vmin=colours.low,
        vmax=colours.high,
        interpolation="nearest",
    )
    _hatch(ax, item.covered & ((item.flags & Flag.EXTRAPOLATED) != 0))
    note = ", disconnected" if (item.flags & Flag.DISCONNECTED).any() else ""
    ax.set_title(
        f"{plain_label(item.visit)}\n{_signed(panel.title)}{note}",
        fontsize=FONT - 1,
        color=INK,
        parse_math=False,
    )
    y0, y1, x0, x1 = _extent(item.covered)
    ax.set_ylim((y0 + y1 - 1 - view[0]) / 2, (y0 + y1 - 1 + view[0]) / 2)
    ax.set_xlim((x0 + x1 - 1 - view[1]) / 2, (x0 + x1 - 1 + view[1]) / 2)
    ax.locator_params(nbins=4, integer=True)
    return image


def _signed(number: str) -> str:
    return number.replace("-", "−")


def _hatch(ax: Axes, where: NDArray[np.bool_]) -> None:
    """Hatch runs of superpixels row by row: few polygons, also for a large region."""
    polygons = []
    for sy in np.flatnonzero(where.any(axis=1)).tolist():
        padded = np.concatenate([[False], where[sy], [False]]).astype(np.int8)
        starts, stops = (np.flatnonzero(np.diff(padded) == sign) - 0.5 for sign in (1, -1))
        for x0, x1 in zip(starts.tolist(), stops.tolist(), strict=True):
            y0, y1 = sy - 0.5, sy + 0.5
            polygons.append([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    style: dict[str, Any] = {"facecolor": "none", "edgecolor": _HATCH, "linewidth": 0.0}
    ax.add_collection(PolyCollection(polygons, hatch="/////", **style), autolim=False)
