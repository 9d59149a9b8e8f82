"""Figures of the report: mosaics before and after, depth, differences, timings.

Every function returns the bytes of a PNG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, FuncNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bgmatch_dask.report.canvas import (
    ACCENT,
    FONT,
    GUIDE,
    INK,
    NO_DATA_COLOUR,
    WARN,
    blank,
    plain_label,
    png,
)
from bgmatch_dask.report.mosaic import Mosaic

__all__ = (
    "Stretch",
    "before_after",
    "choose_stretch",
    "convergence_figure",
    "depth_map",
    "difference_histogram",
    "patch_map",
    "timings_bar",
)

_WIDTH = 11.0
_MAX_COLOURS = 12
"""A depth map of more visits than this has continuous colours."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """An asinh stretch about the sky: linear near it, logarithmic far from it."""

    sky: float
    """Level that the stretch is centred on [image unit]."""
    softening: float
    """Distance from the sky where linear turns into logarithmic [image unit]."""
    low: float
    """Black level [image unit]."""
    high: float
    """White level [image unit]."""

    def norm(self) -> FuncNorm:
        """Return the stretch for matplotlib."""
        return FuncNorm((self._forward, self._inverse), vmin=self.low, vmax=self.high, clip=True)

    def ticks(self, n: int = 7) -> NDArray[np.float64]:
        """Return round levels that lie about evenly on the stretched scale."""
        even = np.linspace(self._forward(self.low), self._forward(self.high), n)
        gap = np.diff(self._inverse(even)).min()
        step = 10.0 ** np.floor(np.log10(gap)) if gap > 0 else 1.0
        levels = np.unique(np.round(self._inverse(even) / step) * step)
        return levels[(levels >= self.low) & (levels <= self.high)]

    def _forward(self, level: Any) -> NDArray[np.float64]:  # noqa: ANN401
        scaled = (np.asarray(level, np.float64) - self.sky) / self.softening
        return np.asarray(np.arcsinh(scaled))

    def _inverse(self, value: Any) -> NDArray[np.float64]:  # noqa: ANN401
        return np.asarray(self.sky + self.softening * np.sinh(np.asarray(value, np.float64)))


def choose_stretch(values: NDArray[np.float64]) -> Stretch:
    """Choose a stretch that shows faint light and small steps of the sky.

    Parameters
    ----------
    values
        Mosaic of the matched coadd, any shape; NaN where there is no data.

    Returns
    -------
    Stretch
        Centred on the median; the noise is taken from the pixels below it, where there is no
        light of sources; from 4 of these sigma below the sky to the 99.7th percentile.
    """
    good = values[np.isfinite(values)]
    if not good.size:
        return Stretch(0.0, 1.0, -1.0, 1.0)
    low, sky, high = (float(v) for v in np.percentile(good, [15.87, 50.0, 99.7]))
    smallest = max(abs(sky) * 1e-6, 1e-12)
    sigma = max(sky - low, smallest)
    return Stretch(sky, 2.0 * sigma, sky - 4.0 * sigma, max(high, sky + 8.0 * sigma))


def before_after(matched: Mosaic, unmatched: Mosaic | None, unit: str) -> bytes:
    """Draw the coadds without and with matching, at one stretch chosen from the matched one.

    Parameters
    ----------
    matched, unmatched
        Mosaics of the two coadds; the unmatched one may be missing.
    unit
        Unit of the image.
    """
    stretch = choose_stretch(matched.values)
    panels = [("After: matched visits", matched)]
    if unmatched is not None:
        panels.insert(0, ("Before: the same visits, unmatched", unmatched))
    figure, axes = _sky_axes(matched, len(panels))
    for ax, (title, mosaic) in zip(axes, panels, strict=True):
        image = _show(ax, mosaic.values, "gray", stretch.norm())
        ax.set_title(title, fontsize=FONT + 2, color=INK)
    unit = plain_label(unit)
    bar = figure.colorbar(image, ax=axes, extend="both", ticks=stretch.ticks(), **_bar(axes))
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=FONT)
    bar.set_label(
        f"surface brightness [{unit}]; asinh about the sky at {stretch.sky:.5g}, "
        f"from {stretch.low:.5g} to {stretch.high:.5g} {unit}",
        fontsize=FONT,
        parse_math=False,
    )
    return png(figure)


def depth_map(n_image: Mosaic) -> bytes:
    """Draw how many visits went into each pixel of the matched coadd."""
    figure, axes = _sky_axes(n_image, 1, width=7.0)
    good = n_image.values[np.isfinite(n_image.values)]
    most = max(int(np.ceil(good.max())), 1) if good.size else 1
    few = most <= _MAX_COLOURS
    norm = BoundaryNorm(np.arange(most + 1) + 0.5, 256) if few else Normalize(0.0, most)
    image = _show(axes[0], n_image.values, "viridis", norm)
    bar = figure.colorbar(image, ax=axes, **_bar(axes))
    if few:
        bar.set_ticks(list(range(1, most + 1)))
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=FONT)
    bar.set_label("visits per pixel (mean of a block)", fontsize=FONT)
    return png(figure)


def _sky_axes(mosaic: Mosaic, n: int, width: float = _WIDTH) -> tuple[Figure, list[Any]]:
    """Lay out axes on the sky: side by side, or one above the other for a wide tract."""
    ny, nx = mosaic.values.shape
    stacked = nx > 1.8 * ny
    columns = 1 if stacked else n
    rows = n if stacked else 1
    panel = (width - 1.0) / columns
    height = float(np.clip((panel - 0.9) * ny / nx + 0.9, 2.2, 14.0)) * rows
    figure = blank(width, height + (0.9 if not stacked and n > 1 else 0.0))
    wcs = mosaic.wcs
    axes = [figure.add_subplot(rows, columns, i + 1, projection=wcs) for i in range(n)]
    for i, ax in enumerate(axes):
        _label_sky(ax, wcs, first_column=i % columns == 0)
    return figure, axes


def _label_sky(ax: Any, wcs: Any, *, first_column: bool) -> None:  # noqa: ANN401
    ra, dec = ax.coords[0], ax.coords[1]
    for coordinate, label in ((ra, "right ascension (ICRS)"), (dec, "declination (ICRS)")):
        coordinate.set_axislabel(label, fontsize=FONT)
        coordinate.set_ticklabel(size=FONT, exclude_overlapping=True)
        coordinate.set_ticks(number=5)
        coordinate.grid(color="white", alpha=0.25, linewidth=0.6)
    if not first_column:
        dec.set_axislabel("")
        dec.set_ticklabel_visible(False)
    _north_up(ax, wcs)


def _north_up(ax: Any, wcs: Any) -> None:  # noqa: ANN401
    """Flip axes so that north is up and east is left, whatever the order of the pixels."""
    matrix = wcs.pixel_scale_matrix
    if matrix[1, 1] < 0:
        ax.invert_yaxis()
    if matrix[0, 0] > 0:
        ax.invert_xaxis()


def _show(ax: Any, values: NDArray[np.float64], cmap: str, norm: Any) -> AxesImage:  # noqa: ANN401
    inverted = ax.xaxis_inverted(), ax.yaxis_inverted()
    ax.set_facecolor(NO_DATA_COLOUR)
    # Nothing is interpolated: a step of one block must look like a step.
    image: AxesImage = ax.imshow(
        np.ma.masked_invalid(values), origin="lower", cmap=cmap, norm=norm, interpolation="nearest"
    )
    if inverted[0] and not ax.xaxis_inverted():
        ax.invert_xaxis()
    if inverted[1] and not ax.yaxis_inverted():
        ax.invert_yaxis()
    return image


def _bar(axes: Sequence[Any]) -> dict[str, Any]:
    if len(axes) > 1:
        return {"location": "bottom", "aspect": 60, "fraction": 0.05, "pad": 0.04}
    return {"location": "right", "aspect": 30, "fraction": 0.06, "pad": 0.03}


def difference_histogram(
    before: Sequence[float], after: Sequence[float], sigma: Sequence[float], unit: str
) -> bytes:
    """Draw the sizes of the mean differences of overlapping visits, before and after matching.

    Parameters
    ----------
    before, after
        Clipped mean difference of each pair over its overlap [image unit]; NaN is left out.
    sigma
        Photon noise of these means [image unit]; the median is drawn as the limit of what
        matching can reach.
    unit
        Unit of the image.
    """
    figure = blank(_WIDTH, 4.0)
    ax = figure.add_subplot()
    unit = plain_label(unit)
    noise = _finite(sigma)
    limit = float(np.median(noise)) if noise.size else 0.0
    sets = (("before", _finite(before), WARN), ("after", _finite(after), ACCENT))
    bins = _log_bins(np.concatenate([values for _, values, _ in sets]), limit)
    for name, values, colour in sets:
        rms = float(np.sqrt(np.mean(values**2))) if values.size else float("nan")
        label = f"{name}: rms {rms:.3g}, mean {values.mean() if values.size else rms:.2g} {unit}"
        sizes = np.clip(np.abs(values), bins[0], bins[-1])
        ax.hist(sizes, bins=bins.tolist(), color=colour, alpha=0.75, edgecolor="white", label=label)
    if limit > 0:
        label = f"photon noise of a mean: median {limit:.2g} {unit}"
        ax.axvline(limit, color=INK, linestyle="--", linewidth=1.2, label=label)
    ax.set_xscale("log")
    ax.set_xlabel(f"| hub − visit |, mean over the overlap [{unit}]", fontsize=FONT)
    ax.xaxis.label.set_parse_math(False)
    ax.set_ylabel("pairs of visits", fontsize=FONT)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    for text in _legend_above(ax):
        text.set_parse_math(False)
    _plain_axes(ax)
    return png(figure)


def _legend_above(ax: Axes) -> list[Text]:
    options: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": 3}
    return list(ax.legend(fontsize=FONT, frameon=False, **options).get_texts())


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    return array[np.isfinite(array)]


def _log_bins(values: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Bins of equal ratio from below the noise, or the smallest size, to the largest size."""
    sizes = np.abs(values[values != 0])
    if limit > 0:
        sizes = np.append(sizes, limit)
    if not sizes.size:
        return np.array([0.1, 1.0, 10.0])
    high = float(sizes.max()) * 1.05
    low = max(float(sizes.min()) * 0.95, high * 1e-6)
    return np.geomspace(min(low, high / 10), high, 41)


def patch_map(values: NDArray[np.float64], unit: str) -> bytes:
    """Draw one figure per patch, shape (ny, nx), with numbers where there is room for them."""
    ny, nx = values.shape
    width = 7.0
    figure = blank(width, float(np.clip((width - 1.6) * ny / nx + 0.8, 1.8, 9.0)))
    figure.set_layout_engine("compressed", w_pad=0.08, h_pad=0.08)
    ax = figure.add_subplot()
    ax.set_facecolor(NO_DATA_COLOUR)
    image = ax.imshow(np.ma.masked_invalid(values), origin="lower", cmap="YlOrBr", vmin=0.0)
    if max(ny, nx) <= _MAX_COLOURS:
        middle = 0.6 * float(np.nanmax(values, initial=0.0))
        for (iy, ix), value in np.ndenumerate(values):
            text = f"{iy * nx + ix}\n{value:.2g}" if np.isfinite(value) else str(iy * nx + ix)
            colour = "white" if value > middle else INK
            ax.text(ix, iy, text, ha="center", va="center", fontsize=FONT - 1, color=colour)
    ax.set_xticks(_whole_ticks(nx))
    ax.set_yticks(_whole_ticks(ny))
    ax.set_xlabel("patch column", fontsize=FONT)
    ax.set_ylabel("patch row", fontsize=FONT)
    ax.tick_params(labelsize=FONT)
    bar = figure.colorbar(image, ax=ax, **_bar([ax]))
    bar.ax.tick_params(labelsize=FONT)
    bar.set_label(f"rms residual [{plain_label(unit)}]", fontsize=FONT, parse_math=False)
    return png(figure)


def _whole_ticks(n: int) -> NDArray[np.int_]:
    """Return about ten of the numbers 0 to n - 1, evenly spaced."""
    return np.arange(0, n, max(1, -(-n // 10)))


def convergence_figure(changes: Sequence[float], unit: str) -> bytes:
    """Draw the change of the offsets in each iteration on a logarithmic scale."""
    figure = blank(7.0, 3.4)
    ax = figure.add_subplot()
    values = np.where(np.asarray(changes, np.float64) > 0, changes, np.nan)
    ax.plot(np.arange(1, len(values) + 1), values, marker="o", color=ACCENT)
    if np.isfinite(values).any():
        ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("iteration", fontsize=FONT)
    ax.set_ylabel(f"rms change [{plain_label(unit)}]", fontsize=FONT, parse_math=False)
    _plain_axes(ax)
    return png(figure)


def timings_bar(timings: Mapping[str, float]) -> bytes:
    """Draw the wall time of each stage, in the order of the flow [s]."""
    figure = blank(_WIDTH, 0.7 + 0.34 * max(len(timings), 1))
    ax = figure.add_subplot()
    names = [plain_label(name) for name in timings]
    seconds = [float(value) for value in timings.values()]
    bars = ax.barh(range(len(names)), seconds, color=ACCENT, height=0.7)
    ax.bar_label(bars, [f"{value:.3g} s" for value in seconds], padding=4, fontsize=FONT)
    ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.invert_yaxis()
    ax.margins(x=0.1)
    ax.set_xlabel("wall time [s]", fontsize=FONT)
    _plain_axes(ax)
    return png(figure)


def _plain_axes(ax: Axes) -> None:
    ax.tick_params(labelsize=FONT, color=GUIDE)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
