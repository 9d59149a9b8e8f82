"""The light that differs from visit to visit: sky background and satellite trails."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.geometry import Box
from bgmatch_dask.warps.simulation.pixels import axes

__all__ = ("SkyModel", "Trail")


@dataclass(frozen=True, slots=True)
class SkyModel:
    """A quadratic surface and a round bump of scattered light.

    With ``u = (x − x_mid) / half`` and ``v`` likewise, the sky is ``level + gx·u + gy·v +
    cxx·u² + cxy·u·v + cyy·v² + bump · exp(−r² / 2σ²)``.
    """

    level: float
    """Sky at the middle of the tract [nJy]."""
    gradient: tuple[float, float]
    """``gx, gy``: change from the middle to an edge [nJy]."""
    curvature: tuple[float, float, float]
    """``cxx, cxy, cyy`` [nJy]."""
    bump: float
    """Peak of the scattered light, 0 for none [nJy]."""
    bump_x: float
    """Tract x of the peak."""
    bump_y: float
    """Tract y of the peak."""
    bump_sigma: float
    """Width of the scattered light [px]."""
    middle: tuple[float, float]
    """Tract x and y where ``u`` and ``v`` are 0."""
    half: float
    """Tract pixels per unit of ``u`` and ``v``."""

    def evaluate(self, box: Box) -> NDArray[np.float64]:
        """Return the sky on ``box`` [nJy], shape ``box.shape``."""
        x, y = axes(box)
        u, v = (x - self.middle[0]) / self.half, (y - self.middle[1]) / self.half
        gx, gy = self.gradient
        cxx, cxy, cyy = self.curvature
        sky = (self.level + gx * u + cxx * u**2) + (gy * v + cyy * v**2) + (cxy * u) * v
        if self.bump:
            along_x = np.exp(-0.5 * ((x - self.bump_x) / self.bump_sigma) ** 2)
            along_y = np.exp(-0.5 * ((y - self.bump_y) / self.bump_sigma) ** 2)
            sky += self.bump * along_x * along_y
        return sky


@dataclass(frozen=True, slots=True)
class Trail:
    """A straight satellite trail across the whole tract."""

    x: float
    """Tract x of a point on the trail."""
    y: float
    """Tract y of a point on the trail."""
    angle: float
    """Direction, counter-clockwise from x [deg]."""
    peak: float
    """Surface brightness of its ridge [nJy]."""
    sigma: float
    """Width (σ of a Gaussian profile) [px]."""
    masked: bool
    """Whether the ``STREAK`` plane marks it."""

    def evaluate(self, box: Box) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the light on ``box`` [nJy], and the pixels within 4σ of the ridge."""
        x, y = axes(box)
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        distance = ((y - self.y) * cos - (x - self.x) * sin) / self.sigma
        light = self.peak * np.exp(-0.5 * distance**2)
        return light, np.abs(distance) < 4.0
