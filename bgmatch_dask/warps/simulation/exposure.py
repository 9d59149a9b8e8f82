"""What one visit records on one box: light, noise, defects and masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import MASK_PLANES, NO_DATA
from bgmatch_dask.warps.simulation.config import SimulationConfig
from bgmatch_dask.warps.simulation.defects import draw_defects
from bgmatch_dask.warps.simulation.pixels import axes
from bgmatch_dask.warps.simulation.sources import draw_catalogue, render_sources
from bgmatch_dask.warps.simulation.visits import VisitTruth
from bgmatch_dask.warps.warp import Warp

__all__ = ("GROWTH", "expose")

GROWTH = 4
"""Pixels by which the footprints of sources are grown for the ``DETECTED`` plane."""
_DISC = np.hypot(*np.mgrid[-GROWTH : GROWTH + 1, -GROWTH : GROWTH + 1]) <= GROWTH + 0.5
# Matched filters find point sources of five sigma when their peak is about one per pixel.
_SOURCE_SIGMA = 1.5
# Detection follows a local background subtraction: cirrus is not detected, a galaxy's core is.
_DIFFUSE_SIGMA = 8.0
_SATURATED_FRACTION = 0.7
_BIT = {name: np.int32(1 << bit) for name, bit in MASK_PLANES.items()}


def expose(
    config: SimulationConfig, visit: VisitTruth, box: Box, diffuse: NDArray[np.float64]
) -> Warp | None:
    """Simulate the warp of one visit on one box.

    Parameters
    ----------
    config
        The simulation.
    visit
        The visit.
    box
        Tract pixels of the warp.
    diffuse
        Diffuse light on ``box.grow(GROWTH)`` [nJy].

    Returns
    -------
    Warp or None
        None when the visit has no data on the box.
    """
    covered, edge = visit.footprint.coverage(*axes(box))
    if not covered.any():
        return None
    grown = box.grow(GROWTH)
    sources = render_sources(draw_catalogue(config), visit.psf_fwhm, grown)
    inner = box.slices_in(grown)
    light = sources[inner] + diffuse[inner] + visit.sky.evaluate(box)
    mask = np.where(edge, _BIT["SENSOR_EDGE"], np.int32(0))
    mask[_detected(sources, diffuse, visit.sky.level, config)[inner]] |= _BIT["DETECTED"]
    for trail in visit.trails:
        streak, near = trail.evaluate(box)
        light += streak
        if trail.masked:
            mask[near] |= _BIT["STREAK"]
    mask[light > _SATURATED_FRACTION * config.saturation] |= _BIT["SAT"]
    light = np.minimum(light, config.saturation)
    variance = light / config.gain + config.read_noise**2
    defects = draw_defects(config, visit.visit, box)
    image = light + defects.noise * np.sqrt(variance) + defects.light
    mask |= defects.mask
    return _blank(box, image, variance, mask, covered)


def _detected(
    sources: NDArray[np.float64],
    diffuse: NDArray[np.float64],
    level: float,
    config: SimulationConfig,
) -> NDArray[np.bool_]:
    """Return the true footprints of what stands out of the sky noise, grown."""
    noise = np.sqrt(level / config.gain + config.read_noise**2)
    bright = (sources > _SOURCE_SIGMA * noise) | (diffuse > _DIFFUSE_SIGMA * noise)
    grown: NDArray[np.bool_] = ndimage.binary_dilation(bright, _DISC)
    return grown


def _blank(
    box: Box,
    image: NDArray[np.float64],
    variance: NDArray[np.float64],
    mask: NDArray[np.int32],
    covered: NDArray[np.bool_],
) -> Warp:
    """Make the warp, without data off the detectors."""
    return Warp(
        box,
        np.where(covered, image, np.nan).astype(np.float32),
        np.where(covered, variance, np.inf).astype(np.float32),
        np.where(covered, mask, np.int32(NO_DATA)).astype(np.int32),
    )
