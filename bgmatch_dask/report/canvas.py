"""What all figures share: fonts, colours, labels from outside, and PNG bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

__all__ = (
    "ACCENT",
    "FONT",
    "GUIDE",
    "INK",
    "NO_DATA_COLOUR",
    "WARN",
    "blank",
    "plain_label",
    "png",
)

FONT = 10.0
"""Font size [pt]; the report shows a figure at 100 pixels per inch or more."""
INK = "#1f2933"
"""Text and axes."""
GUIDE = "#8a97a6"
"""Grids and secondary lines."""
ACCENT = "#0072b2"
"""After matching (blue of the Okabe-Ito palette, safe for colour-blind readers)."""
WARN = "#d55e00"
"""Before matching (vermillion of the same palette)."""
NO_DATA_COLOUR = "#d5dde8"
"""Where a map holds no data; no grey, so that it cannot be taken for sky."""
_DPI = 150
_COMPRESSION = 4
"""Higher levels take twice as long for the last tenth."""


def blank(width: float, height: float, *, fit: bool = True) -> Figure:
    """Return an empty white figure [inch]; no state is shared between figures.

    Parameters
    ----------
    width, height
        Size of the figure.
    fit
        Whether axes are laid out to fit their labels; otherwise they stay where they are put.
    """
    options: dict[str, Any] = {"layout": "constrained"} if fit else {}
    figure = Figure((width, height), dpi=_DPI, facecolor="white", **options)
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """Return the figure as PNG; the same figure gives the same bytes."""
    canvas: Any = figure.canvas
    # Once: a figure that is laid out to fit is drawn twice where matplotlib saves it.
    canvas.draw()
    buffer = io.BytesIO()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    Image.fromarray(pixels).save(buffer, "png", compress_level=_COMPRESSION, dpi=(_DPI, _DPI))
    return buffer.getvalue()


def plain_label(text: object, length: int = 24) -> str:
    """Return a label from outside that a figure can draw: printable Latin, of limited length."""
    shown = "".join(c if c.isprintable() and ord(c) < 0x180 else "?" for c in str(text))
    return shown if len(shown) <= length else shown[: length - 1] + "…"
