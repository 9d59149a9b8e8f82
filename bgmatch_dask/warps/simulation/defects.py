"""What is random per pixel of a visit: noise, cosmic rays, hot pixels.

All of it is drawn per random tile of the tract. A cosmic ray ends at the border of its tile,
so that no tile needs to know its neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import bits_of
from bgmatch_dask.warps.simulation.config import SimulationConfig
from bgmatch_dask.warps.simulation.pixels import Stream, stream, tiles_touching

__all__ = ("Defects", "draw_defects")

_MASKED_RAYS = 0.9
"""Fraction of the cosmic rays that the ``CR`` plane marks."""
_CR = np.int32(bits_of(["CR"]))
_BAD = np.int32(bits_of(["BAD"]))


@dataclass(frozen=True, slots=True, eq=False)
class Defects:
    """Random planes of one visit on one box."""

    noise: NDArray[np.float32]
    """Unit normal noise."""
    light: NDArray[np.float32]
    """Light of cosmic rays and hot pixels [nJy]."""
    mask: NDArray[np.int32]
    """``CR`` and ``BAD`` bits."""


def draw_defects(config: SimulationConfig, visit: int, box: Box) -> Defects:
    """Draw noise and defects of a visit on a box.

    Parameters
    ----------
    config
        The simulation.
    visit
        Label of the visit, a part of the key of its random streams.
    box
        Tract pixels, not left of or below pixel (0, 0).

    Returns
    -------
    Defects
        Planes of shape ``box.shape``; the same numbers for a pixel whatever the box.
    """
    noise = np.empty(box.shape, np.float32)
    light = np.zeros(box.shape, np.float32)
    mask = np.zeros(box.shape, np.int32)
    for row, column, tile in tiles_touching(box):
        part = tile.intersect(box)
        target, source = part.slices_in(box), part.slices_in(tile)
        rng = stream(config.seed, Stream.PIXELS, visit, row, column)
        noise[target] = rng.standard_normal(tile.shape, dtype=np.float32)[source]
        tile_light, tile_mask = _tile_defects(config, rng, tile.shape)
        light[target] = tile_light[source]
        mask[target] = tile_mask[source]
    return Defects(noise, light, mask)


def _tile_defects(
    config: SimulationConfig, rng: np.random.Generator, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    light = np.zeros(shape, np.float32)
    mask = np.zeros(shape, np.int32)
    megapixels = shape[0] * shape[1] * 1e-6
    for _ in range(rng.poisson(config.cosmic_ray_density * megapixels)):
        _add_ray(rng, light, mask)
    hot = rng.integers(0, light.size, rng.poisson(config.hot_pixel_density * megapixels))
    light.flat[hot] += rng.uniform(500.0, 20_000.0, len(hot)).astype(np.float32)
    mask.flat[hot] |= _BAD
    return light, mask


def _add_ray(rng: np.random.Generator, light: NDArray[np.float32], mask: NDArray[np.int32]) -> None:
    """Add one straight track of a few pixels, one or two pixels wide."""
    y0, x0 = rng.uniform(0, light.shape[0]), rng.uniform(0, light.shape[1])
    angle = rng.uniform(0.0, math.pi)
    steps = np.arange(0.0, 2.0 + rng.exponential(7.0), 0.5)
    y = np.floor(y0 + steps * math.sin(angle)).astype(np.int64)
    x = np.floor(x0 + steps * math.cos(angle)).astype(np.int64)
    inside = (y >= 0) & (y < light.shape[0]) & (x >= 0) & (x < light.shape[1])
    y, x = y[inside], x[inside]
    # Each step deposits energy, so that pixels that are crossed at length are brighter.
    np.add.at(light, (y, x), np.float32(rng.uniform(150.0, 1500.0)))
    if rng.uniform() < _MASKED_RAYS:
        mask[y, x] |= _CR
