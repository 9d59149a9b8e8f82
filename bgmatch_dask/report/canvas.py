"""What all figures share: fonts, colours, labels from outside, and PNG bytes."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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


def blank(width: float, height: float, *, fit: bool = True) -> Figure:
    """Return an empty white figure [inch]; no state is shared between figures.

    Parameters
    ----------
    width, height
        Size of the figure.
    fit
        Whether axes are laid out to fit their labels; otherwise they stay where they are put.
    """
    figure = Figure((width, height), facecolor="white", layout="constrained" if fit else None)
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """Return the figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 6}}
    figure.savefig(buffer, format="png", dpi=_DPI, **options)
    return buffer.getvalue()


def plain_label(text: object, length: int = 24) -> str:
    """Return a label from outside that a figure can draw: printable Latin, of limited length."""
    shown = "".join(c if c.isprintable() and ord(c) < 0x180 else "?" for c in str(text))
    return shown if len(shown) <= length else shown[: length - 1] + "…"
