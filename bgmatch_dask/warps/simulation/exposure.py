"""What one visit records on one box: light, noise, defects and masks."""

from __future__ import annotations

from dataclasses import replace

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

__all__ = ("GROWTH", "expose", "photometric_ratio")

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
    ratio = None
    if config.ratio_amplitude > 0:
        ratio = photometric_ratio(config, visit.visit, box)
        # The sky is smooth under the other flat field: in the calibration of stars it is not.
        light += visit.sky.evaluate(box) * (1.0 / ratio - 1.0)
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
    warp = _blank(box, image, variance, mask, covered)
    return warp if ratio is None else replace(warp, ratio=ratio.astype(np.float32))


def photometric_ratio(config: SimulationConfig, visit: int, box: Box) -> NDArray[np.float64]:
    """Return the ratio of background to photometric calibration of a visit: rings and stripes.

    Their scale is that of detectors, a fraction of a patch, and they move with the visit.
    """
    y, x = (axis.astype(np.float64) for axis in np.mgrid[box.y0 : box.y1, box.x0 : box.x1])
    scale, phase = 0.35 * config.patch_size, 0.7 * (visit % 97)
    stripes = np.sign(np.sin(2.0 * np.pi * x / scale + phase))
    rings = np.cos(2.0 * np.pi * np.hypot(x - 90.0 * phase, y) / scale)
    out: NDArray[np.float64] = 1.0 + 0.5 * config.ratio_amplitude * (stripes + rings)
    return out


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
