"""Pixel coordinates and random streams that do not depend on how the tract is cut.

Each random tile of the tract has its own stream per visit, so that two patches draw the same
numbers where they overlap, whichever is made first and in whichever process.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.geometry import Box

__all__ = ("Stream", "axes", "stream", "tiles_touching")

TILE = 128
"""Side of a random tile [px]."""


class Stream(IntEnum):
    """What a random stream is for."""

    VISITS = 1
    STARS = 2
    GALAXIES = 3
    CIRRUS = 4
    PIXELS = 5


def stream(seed: int, purpose: Stream, *key: int) -> np.random.Generator:
    """Return the random stream of a purpose and key (visit, tile row, tile column)."""
    return np.random.default_rng([seed, int(purpose), *key])


def axes(box: Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return tract x of shape ``(1, width)`` and tract y of shape ``(height, 1)``."""
    x = np.arange(box.x0, box.x1, dtype=np.float64)[np.newaxis, :]
    y = np.arange(box.y0, box.y1, dtype=np.float64)[:, np.newaxis]
    return x, y


def tiles_touching(box: Box) -> Iterator[tuple[int, int, Box]]:
    """Yield row, column and box of each random tile that meets ``box``."""
    for row in range(box.y0 // TILE, -(-box.y1 // TILE)):
        for column in range(box.x0 // TILE, -(-box.x1 // TILE)):
            yield row, column, Box(column * TILE, row * TILE, TILE, TILE)
