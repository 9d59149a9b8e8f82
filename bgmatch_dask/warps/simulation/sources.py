"""Stars and galaxies: a catalogue, and its rendering at the seeing of a visit.

Stars are Moffat profiles with β = 3. A galaxy is an elliptical one whose second-moment matrix
is the sum of its own and of the PSF's, so that its flux is kept and it blurs with the seeing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.geometry import Box
from bgmatch_dask.warps.simulation.config import SimulationConfig
from bgmatch_dask.warps.simulation.pixels import Stream, stream

__all__ = ("Catalogue", "draw_catalogue", "render_sources")

_MARGIN = 60
"""Sources are drawn this far beyond the tract [px], so that its edges are not special."""
_FAINTEST = 0.05
"""Stamps end where the light of a source falls below this [nJy]."""
_RADII = np.array([4, 6, 9, 13, 19, 28, 42, 64, 96, 144, 216, 324, 486])
_BATCH = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """Sources of a tract; all arrays are float64 of shape ``(n,)``."""

    x: NDArray[np.float64]
    """Tract x."""
    y: NDArray[np.float64]
    """Tract y."""
    flux: NDArray[np.float64]
    """Total flux [nJy]."""
    qxx: NDArray[np.float64]
    """Intrinsic shape matrix, xx [px²]; zero for stars."""
    qxy: NDArray[np.float64]
    """Intrinsic shape matrix, xy [px²]."""
    qyy: NDArray[np.float64]
    """Intrinsic shape matrix, yy [px²]."""


@lru_cache(maxsize=4)
def draw_catalogue(config: SimulationConfig) -> Catalogue:
    """Return the stars, then the galaxies, of a simulated tract."""
    area = config.geometry.patches.tract_box.grow(_MARGIN)
    stars = _place(area, config.star_density, stream(config.seed, Stream.STARS))
    rng = stream(config.seed, Stream.STARS, 1)
    star_flux = _power_law(rng, len(stars), 1.55, 200.0, 4e6)
    galaxies = _place(area, config.galaxy_density, stream(config.seed, Stream.GALAXIES))
    rng = stream(config.seed, Stream.GALAXIES, 1)
    n = len(galaxies)
    galaxy_flux = _power_law(rng, n, 1.8, 600.0, 3e5)
    major = 3.0 * (galaxy_flux / 2e3) ** 0.25 * np.exp(0.35 * rng.standard_normal(n))
    minor = major * rng.uniform(0.3, 1.0, n)
    angle = rng.uniform(0.0, math.pi, n)
    cos, sin = np.cos(angle), np.sin(angle)
    point = np.zeros(len(stars))
    x, y = np.concatenate([stars, galaxies]).T.copy()
    return Catalogue(
        x,
        y,
        np.concatenate([star_flux, galaxy_flux]),
        np.concatenate([point, (major * cos) ** 2 + (minor * sin) ** 2]),
        np.concatenate([point, (major**2 - minor**2) * cos * sin]),
        np.concatenate([point, (major * sin) ** 2 + (minor * cos) ** 2]),
    )


def _place(box: Box, density: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return uniform positions, shape ``(n, 2)``."""
    n = round(density * 1e-6 * box.width * box.height)
    low = (box.x0 - 0.5, box.y0 - 0.5)
    return rng.uniform(low, (box.x1 - 0.5, box.y1 - 0.5), (n, 2))


def _power_law(
    rng: np.random.Generator, n: int, slope: float, low: float, high: float
) -> NDArray[np.float64]:
    """Draw fluxes with ``dN/dF ∝ F^−slope`` between ``low`` and ``high`` [nJy]."""
    a, b = low ** (1 - slope), high ** (1 - slope)
    flux: NDArray[np.float64] = (a + (b - a) * rng.uniform(size=n)) ** (1 / (1 - slope))
    return flux


def render_sources(catalogue: Catalogue, fwhm: float, box: Box) -> NDArray[np.float64]:
    """Render the catalogue on a box.

    Each pixel sums the same stamps in the same order whatever the box is, so that overlapping
    boxes agree to the last bit.

    Parameters
    ----------
    catalogue
        Sources in tract pixels.
    fwhm
        Full width at half maximum of the PSF [px]; α = FWHM / (2 √(2^(1/3) − 1)).
    box
        Tract pixels to render.

    Returns
    -------
    ndarray of float64
        Light [nJy], shape ``box.shape``.
    """
    alpha2 = (0.5 * fwhm) ** 2 / (2 ** (1 / 3) - 1)
    qxx, qyy = catalogue.qxx + alpha2, catalogue.qyy + alpha2
    det = qxx * qyy - catalogue.qxy**2
    peak = catalogue.flux * 2.0 / (math.pi * np.sqrt(det))
    major2 = 0.5 * (qxx + qyy) + np.hypot(0.5 * (qxx - qyy), catalogue.qxy)
    reach = np.sqrt(major2 * np.maximum(np.cbrt(peak / _FAINTEST) - 1, 0))
    bucket = np.minimum(np.searchsorted(_RADII, reach), len(_RADII) - 1)
    radius = _RADII[bucket]
    near = (np.abs(catalogue.x - (box.x0 + 0.5 * box.width)) < radius + 1 + 0.5 * box.width) & (
        np.abs(catalogue.y - (box.y0 + 0.5 * box.height)) < radius + 1 + 0.5 * box.height
    )
    inverse = np.stack([qyy / det, -2.0 * catalogue.qxy / det, qxx / det])
    out = np.zeros(box.shape)
    for index, stamp_radius in enumerate(_RADII.tolist()):
        chosen = np.flatnonzero(near & (bucket == index))
        step = max(1, _BATCH // (2 * stamp_radius + 1) ** 2)
        for start in range(0, len(chosen), step):
            batch = chosen[start : start + step]
            _add_stamps(out, box, catalogue, peak[batch], inverse[:, batch], batch, stamp_radius)
    return out


def _add_stamps(
    out: NDArray[np.float64],
    box: Box,
    catalogue: Catalogue,
    peak: NDArray[np.float64],
    inverse: NDArray[np.float64],
    batch: NDArray[np.int64],
    radius: int,
) -> None:
    """Add the stamps of sources of one size; ``inverse`` holds the quadratic form's terms."""
    x0 = np.rint(catalogue.x[batch]).astype(np.int64) - radius
    y0 = np.rint(catalogue.y[batch]).astype(np.int64) - radius
    offsets = np.arange(2 * radius + 1)
    dx = ((x0[:, np.newaxis] + offsets) - catalogue.x[batch, np.newaxis])[:, np.newaxis, :]
    dy = ((y0[:, np.newaxis] + offsets) - catalogue.y[batch, np.newaxis])[:, :, np.newaxis]
    xx, xy, yy = inverse[:, :, np.newaxis, np.newaxis]
    base = (1.0 + xx * dx * dx) + yy * dy * dy + (xy * dx) * dy
    stamps = peak[:, np.newaxis, np.newaxis] / (base * base * base)
    for stamp, left, bottom in zip(stamps, x0.tolist(), y0.tolist(), strict=True):
        place = Box(left, bottom, len(offsets), len(offsets))
        part = place.intersect(box)
        if not part.empty:
            out[part.slices_in(box)] += stamp[part.slices_in(place)]
