"""Small calibrated images with a WCS, for the tests of inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import ArrayLike

CENTRE = (150.1, 2.2)
SCALE = 1.0
"""Pixel size [arcsec]."""


def make_wcs(
    shape: tuple[int, int],
    *,
    centre: tuple[float, float] = CENTRE,
    scale: float = SCALE,
    angle: float = 0.0,
) -> WCS:
    """Return a TAN projection with its tangent point in the middle of an image."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.crval = centre
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * scale / 3600.0
    return wcs


def write_image(path: Path, data: ArrayLike, wcs: WCS | None, **cards: object) -> Path:
    """Write an image with its WCS and other cards."""
    header = wcs.to_header() if wcs is not None else fits.Header()
    header.update(cards)
    fits.PrimaryHDU(np.asarray(data), header).writeto(path, overwrite=True, checksum=True)
    return path
