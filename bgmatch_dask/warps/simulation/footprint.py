"""Where a visit has data: a rotated mosaic of detectors with gaps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ("Footprint",)

_EDGE = 3.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """A grid of detectors, turned about its centre; lengths in pixels of the tract."""

    x: float
    """Tract x of the centre."""
    y: float
    """Tract y of the centre."""
    angle: float
    """Rotation, counter-clockwise [deg]."""
    columns: int
    """Detectors along the mosaic's own u axis."""
    rows: int
    """Detectors along the mosaic's own v axis."""
    width: float
    """Size of a detector along u."""
    height: float
    """Size of a detector along v."""
    gap: float
    """Distance between detectors."""

    @property
    def half_width(self) -> float:
        """Half the extent along u."""
        return 0.5 * (self.columns * (self.width + self.gap) - self.gap)

    @property
    def half_height(self) -> float:
        """Half the extent along v."""
        return 0.5 * (self.rows * (self.height + self.gap) - self.gap)

    def coverage(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return where pixels lie on a detector, and where they lie near its edge.

        Parameters
        ----------
        x, y
            Tract coordinates that broadcast against each other.

        Returns
        -------
        covered, edge : ndarray of bool
            ``edge`` is a part of ``covered``: within 3 px of a detector's border.
        """
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        u = (x - self.x) * cos + (y - self.y) * sin + self.half_width
        v = (y - self.y) * cos - (x - self.x) * sin + self.half_height
        near_u = _border_distance(u, self.columns, self.width, self.gap)
        near_v = _border_distance(v, self.rows, self.height, self.gap)
        distance = np.minimum(near_u, near_v)
        covered = distance > 0
        return covered, covered & (distance < _EDGE)


def _border_distance(
    position: NDArray[np.float64], count: int, size: float, gap: float
) -> NDArray[np.float64]:
    """Return the distance to the nearest detector border, negative off the detectors."""
    index = np.clip(np.floor(position / (size + gap)), 0, count - 1)
    local = position - index * (size + gap)
    return np.minimum(local, size - local)
