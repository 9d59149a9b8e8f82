"""The pixels that all programs are given, and what they hand back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

__all__ = ("STRIDE", "Scene", "save_corrections")

STRIDE = 4
"""Corrections are compared on every fourth pixel of every fourth row."""


@dataclass(frozen=True)
class Scene:
    """One FITS image per visit over the whole tract, with its masks."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Labels of the visits and shape of the tract."""
        facts: dict[str, Any] = json.loads((self.folder / "scene.json").read_text("utf-8"))
        return facts

    @property
    def visits(self) -> list[str]:
        """Labels, the best reference first."""
        return list(self.facts["visits"])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.facts["shape"]
        return height, width

    def path(self, visit: str) -> Path:
        """Return the image of a visit: float32, NaN without data or where bad."""
        return self.folder / f"visit-{visit}.fits"

    def image(self, visit: str) -> NDArray[np.float32]:
        """Return the pixels of a visit."""
        return np.asarray(fits.getdata(self.path(visit)), np.float32)

    def header(self, visit: str) -> fits.Header:
        """Return the header of a visit."""
        return fits.getheader(self.path(visit))

    def detected(self, visit: str) -> NDArray[np.bool_]:
        """Return which pixels hold detected sources."""
        found: NDArray[np.bool_] = fits.getdata(self.folder / f"detected-{visit}.fits") != 0
        return found


def save_corrections(folder: str, corrections: dict[str, NDArray[Any]]) -> None:
    """Write what a program adds to each visit, on the pixels of `STRIDE`; scalars are constants."""
    arrays = {visit: np.asarray(values, np.float64) for visit, values in corrections.items()}
    np.savez(folder, allow_pickle=False, **arrays)
