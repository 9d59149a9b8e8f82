"""Figure of per-warp matches: what was fitted, and what the fit left over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bgmatch_dask.background.per_warp import WarpFigures, WarpModel
from bgmatch_dask.geometry import Box
from bgmatch_dask.report.canvas import FONT, INK, NO_DATA_COLOUR, blank, plain_label, png

__all__ = ("MOST_ROWS", "warp_fits_figure")

MOST_ROWS = 6
"""Most matches in one figure."""
_ROW_HEIGHT, _WIDTH = 4.2, 11.0
_MAX_SIDE = 300
"""Pixels of a drawn model along its longer side, about."""
_DOT = 34.0

Row = tuple[str, WarpModel, WarpFigures]


def warp_fits_figure(rows: Sequence[Row], unit: str) -> bytes:
    """Draw each match: measured cells over the model, and the residuals of cells beside it.

    Parameters
    ----------
    rows
        Label, offset and figures of each match; at least one. The first `MOST_ROWS` are drawn.
    unit
        Unit of the pixels.

    Returns
    -------
    bytes
        A PNG.
    """
    shown = rows[:MOST_ROWS]
    figure = blank(_WIDTH, _ROW_HEIGHT * len(shown) + 0.3)
    axes = np.atleast_2d(figure.subplots(len(shown), 2, squeeze=False))
    for (left, right), (label, model, figures) in zip(axes, shown, strict=True):
        _draw_model(figure, left, label, model, unit)
        _draw_residuals(figure, right, model.box, figures, unit)
    if len(rows) > len(shown):
        figure.supxlabel(f"the first {len(shown)} of {len(rows)}", fontsize=FONT, color=INK)
    return png(figure)


def _draw_model(figure: Figure, axes: Axes, label: str, model: WarpModel, unit: str) -> None:
    box, background = model.box, model.background
    step = max(1, max(box.shape) // _MAX_SIDE)
    image = model.render()[::step, ::step]
    low, high = _limits(np.concatenate([image.ravel(), background.values.ravel()]))
    drawn = axes.imshow(
        image, origin="lower", extent=_extent(box), vmin=low, vmax=high, cmap="viridis",
        interpolation="nearest", aspect="equal",
    )  # fmt: skip
    x, y = np.meshgrid(background.x_centres, background.y_centres)
    measured = np.isfinite(background.values)
    axes.scatter(
        x[measured], y[measured], c=background.values[measured], s=_dot(measured.shape),
        vmin=low, vmax=high, cmap="viridis", edgecolors="white", linewidths=0.8,
    )  # fmt: skip
    axes.scatter(x[~measured], y[~measured], s=_DOT / 2, c="white", marker="x", linewidths=0.8)
    kind = "spline" if model.polynomial is None else f"polynomial of order {model.polynomial.order}"
    _dress(axes, f"{plain_label(label, 44)}\n{kind}; o measured cells, x none")
    _add_bar(figure, axes, drawn, f"offset [{plain_label(unit)}]")


def _draw_residuals(figure: Figure, axes: Axes, box: Box, figures: WarpFigures, unit: str) -> None:
    x = box.x0 - 0.5 + figures.grid.x_edges
    y = box.y0 - 0.5 + figures.grid.y_edges
    finite = figures.residuals[np.isfinite(figures.residuals)]
    limit = float(np.abs(finite).max(initial=0.0)) or 1.0
    axes.set_facecolor(NO_DATA_COLOUR)
    drawn = axes.pcolormesh(
        x, y, np.ma.masked_invalid(figures.residuals), vmin=-limit, vmax=limit, cmap="RdBu_r"
    )
    axes.set_aspect("equal")
    _dress(
        axes,
        f"residuals of cells: rms {figures.fit_rms:.3g} {plain_label(unit)}\n"
        f"matchedMSE/diffImVar {figures.ratio:.4g}",
    )
    _add_bar(figure, axes, drawn, f"reference − matched [{plain_label(unit)}]")


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=FONT, color=INK, parse_math=False)
    axes.set_xlabel("x [pixel]", fontsize=FONT, color=INK)
    axes.set_ylabel("y [pixel]", fontsize=FONT, color=INK)
    axes.tick_params(labelsize=FONT - 1, colors=INK)


def _add_bar(figure: Figure, axes: Axes, drawn: ScalarMappable, label: str) -> None:
    # Inside the axes' own frame, so that the bar is as high as the map.
    bar = figure.colorbar(drawn, cax=axes.inset_axes((1.03, 0.0, 0.04, 1.0)))
    bar.set_label(label, fontsize=FONT, color=INK, parse_math=False)
    bar.ax.tick_params(labelsize=FONT - 1, colors=INK)


def _dot(shape: tuple[int, ...]) -> float:
    """Return the area of a dot [pt²], smaller where there are many."""
    return float(np.clip(_DOT * (10.0 / max(shape)) ** 2, 4.0, _DOT))


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(v) for v in (finite.min(), finite.max())) if finite.size else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _extent(box: Box) -> tuple[float, float, float, float]:
    return (box.x0 - 0.5, box.x1 - 0.5, box.y0 - 0.5, box.y1 - 0.5)
