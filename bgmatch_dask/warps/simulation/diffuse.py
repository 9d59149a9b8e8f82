"""The faint extended light that must survive: one large galaxy and Galactic cirrus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.geometry import Box
from bgmatch_dask.warps.simulation.config import SimulationConfig
from bgmatch_dask.warps.simulation.pixels import Stream, axes, stream

__all__ = ("DiffuseModel", "draw_diffuse")

_CELLS = 512
"""Cells of the cirrus along one side of its period, which is twice the tract."""


@dataclass(frozen=True, slots=True)
class DiffuseModel:
    """Light that is the same in all visits and smooth on the scale of a PSF."""

    seed: int
    """Seed of the cirrus."""
    size: float
    """Longer side of the tract [px]; the cirrus repeats after twice that."""
    cirrus_rms: float
    """Standard deviation of the cirrus [nJy]."""
    galaxy_x: float
    """Tract x of the galaxy's centre."""
    galaxy_y: float
    """Tract y of the galaxy's centre."""
    galaxy_angle: float
    """Position of its major axis, counter-clockwise from x [deg]."""
    galaxy_axis_ratio: float
    """Minor over major axis."""
    disc_peak: float
    """Central surface brightness of the exponential disc [nJy]."""
    disc_scale: float
    """Scale length of the disc [px]."""
    bulge_peak: float
    """Central surface brightness of the exponential bulge [nJy]."""
    bulge_scale: float
    """Scale length of the bulge [px]."""

    def evaluate(self, box: Box) -> NDArray[np.float64]:
        """Return galaxy and cirrus on ``box`` [nJy], shape ``box.shape``."""
        return self._galaxy(box) + self._cirrus(box)

    def _galaxy(self, box: Box) -> NDArray[np.float64]:
        x, y = axes(box)
        cos, sin = (
            math.cos(math.radians(self.galaxy_angle)),
            math.sin(math.radians(self.galaxy_angle)),
        )
        u = (x - self.galaxy_x) * cos + (y - self.galaxy_y) * sin
        v = ((y - self.galaxy_y) * cos - (x - self.galaxy_x) * sin) / self.galaxy_axis_ratio
        radius = np.hypot(u, v)
        # Two logarithmic arms; they fade into the centre, where their phase is undefined.
        phase = 2.0 * np.arctan2(v, u) - 6.0 * np.log(radius / self.disc_scale + 0.05)
        strength = 0.35 * radius / (radius + 0.7 * self.disc_scale)
        disc = self.disc_peak * np.exp(-radius / self.disc_scale) * (1 + strength * np.cos(phase))
        bulge = self.bulge_peak * np.exp(
            -np.hypot(u, v * self.galaxy_axis_ratio) / self.bulge_scale
        )
        light: NDArray[np.float64] = disc + bulge
        return light

    def _cirrus(self, box: Box) -> NDArray[np.float64]:
        field = _cirrus_field(self.seed)
        x, y = axes(box)
        cell = 2.0 * self.size / _CELLS
        columns, x_taps = _cubic_taps(x[0] / cell)
        rows, y_taps = _cubic_taps(y[:, 0] / cell)
        bands = sum(
            (y_taps[k][:, np.newaxis] * field[(rows + k) % _CELLS] for k in range(1, 4)),
            y_taps[0][:, np.newaxis] * field[rows % _CELLS],
        )
        light: NDArray[np.float64] = x_taps[0] * bands[:, columns % _CELLS]
        for k in range(1, 4):
            light += x_taps[k] * bands[:, (columns + k) % _CELLS]
        light *= self.cirrus_rms
        return light


def _cubic_taps(position: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return first cell and the four uniform cubic B-spline weights at each position."""
    base = np.floor(position)
    t = position - base
    taps = np.stack(
        [
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        ]
    )
    return base.astype(np.int64) - 1, taps


@lru_cache(maxsize=4)
def _cirrus_field(seed: int) -> NDArray[np.float64]:
    """Return a periodic random field whose power falls as k⁻³, of unit variance in a tract."""
    noise = stream(seed, Stream.CIRRUS).standard_normal((_CELLS, _CELLS))
    frequency = np.fft.fftfreq(_CELLS)
    k = np.hypot(frequency[:, np.newaxis], frequency[np.newaxis, :])
    k[0, 0] = np.inf
    field: NDArray[np.float64] = np.fft.ifft2(np.fft.fft2(noise) * k**-1.5).real
    tract = field[: _CELLS // 2, : _CELLS // 2]
    field = (field - tract.min()) / tract.std()
    field.setflags(write=False)
    return field


def draw_diffuse(config: SimulationConfig) -> DiffuseModel:
    """Return the diffuse light of a simulated tract."""
    box, size = config.geometry.patches.tract_box, float(config.size)
    return DiffuseModel(
        seed=config.seed,
        size=size,
        cirrus_rms=config.cirrus_rms,
        galaxy_x=0.43 * box.width,
        galaxy_y=0.56 * box.height,
        galaxy_angle=35.0,
        galaxy_axis_ratio=0.6,
        disc_peak=config.galaxy_peak,
        disc_scale=0.055 * size,
        bulge_peak=8.0 * config.galaxy_peak,
        bulge_scale=0.006 * size,
    )
