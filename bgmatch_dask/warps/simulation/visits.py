"""The visits of a simulated tract: where they point, what sky they see, how sharp they are.

The second visit has the flattest and darkest sky and covers most of the tract: it is the best
reference. With the pointings `strip`, one visit (the seventh, or the last of fewer) lies wholly in
the strip that the reference misses, so it can only be tied to it through others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bgmatch_dask.geometry import Box
from bgmatch_dask.warps.simulation.config import SimulationConfig
from bgmatch_dask.warps.simulation.footprint import Footprint
from bgmatch_dask.warps.simulation.pixels import Stream, axes, stream
from bgmatch_dask.warps.simulation.sky import SkyModel, Trail

__all__ = ("VisitTruth", "best_reference", "draw_visits")

_REFERENCE = 1
_MIN_VISITS_FOR_STRIP = 4
_SAMPLING = 4

_POINTINGS: tuple[tuple[float, float, float, float, float], ...] = (
    (0.25, 0.50, 0.34, 0.72, -5.0),
    (0.38, 0.50, 0.47, 0.75, 4.0),
    (0.64, 0.42, 0.50, 0.50, 25.0),
    (0.70, 0.62, 0.50, 0.50, -15.0),
    (0.50, 0.74, 0.68, 0.42, 8.0),
    (0.62, 0.36, 0.54, 0.46, -10.0),
    (0.66, 0.50, 0.45, 0.60, 15.0),
    (0.52, 0.50, 0.52, 0.42, 40.0),
)
"""Centre x, y, half-sizes (in units of the tract) and rotation [deg] of the first visits."""

_BROAD = {
    0: (0.30, 0.50, 0.345, 0.72, -5.0),
    _REFERENCE: (0.50, 0.50, 0.515, 0.72, 4.0),
    6: (0.86, 0.50, 0.13, 0.72, -5.0),
}
"""Footprints of `broad` that differ from those of `strip`."""

_TRAILS = {0: (400.0, True), 3: (150.0, False), 4: (900.0, True), 7: (250.0, True)}
"""Peak [nJy] of a visit's satellite trail, and whether it is masked."""

_BUMPS = {5: (0.62, 0.40, 1.0), 3: (0.75, 0.80, 0.5)}
"""Place (in units of the tract) and relative strength of a visit's scattered light."""


@dataclass(frozen=True, slots=True)
class VisitTruth:
    """All that is special to one visit."""

    visit: int
    """Label."""
    psf_fwhm: float
    """Seeing [px]."""
    sky: SkyModel
    """Its background."""
    footprint: Footprint
    """Where it has data."""
    trails: tuple[Trail, ...]
    """Satellite trails."""
    coverage: float
    """Fraction of the tract with data, from every fourth pixel."""
    overlaps_reference: bool
    """Whether it shares pixels with the best reference."""


def best_reference(config: SimulationConfig) -> int:
    """Return the label of the visit that makes the best reference."""
    return config.visit_ids[min(_REFERENCE, config.visits - 1)]


def draw_visits(config: SimulationConfig) -> tuple[VisitTruth, ...]:
    """Return the visits of a tract, in the order of their labels."""
    box = config.geometry.patches.tract_box
    reference = min(_REFERENCE, config.visits - 1)
    footprints = tuple(_footprint(config, index) for index in range(config.visits))
    x, y = axes(box)
    x, y = x[:, ::_SAMPLING], y[::_SAMPLING]
    target = footprints[reference].coverage(x, y)[0]
    levels = _levels(config, reference)
    visits = []
    for index, footprint in enumerate(footprints):
        rng = stream(config.seed, Stream.VISITS, index)
        covered = footprint.coverage(x, y)[0]
        visits.append(
            VisitTruth(
                visit=config.visit_ids[index],
                psf_fwhm=float(rng.uniform(*config.psf_fwhm)),
                sky=_sky(config, index, levels[index], index == reference),
                footprint=footprint,
                trails=_trails(config, index),
                coverage=float(covered.mean()),
                overlaps_reference=bool((covered & target).any()),
            )
        )
    return tuple(visits)


def _levels(config: SimulationConfig, reference: int) -> list[float]:
    """Spread the levels over their range, in random order, the darkest for the reference."""
    low, high = config.sky_level
    rng = stream(config.seed, Stream.VISITS)
    others = low + (high - low) * (rng.permutation(config.visits - 1) + 1) / config.visits
    levels = [float(value) for value in others]
    levels.insert(reference, low)
    return levels


def _sky(config: SimulationConfig, index: int, level: float, flat: bool) -> SkyModel:
    rng = stream(config.seed, Stream.VISITS, index, 1)
    gradient = rng.uniform(-config.sky_gradient, config.sky_gradient, 2)
    curvature = rng.uniform(-config.sky_curvature, config.sky_curvature, 3)
    if flat:
        gradient, curvature = 0.04 * gradient, 0.04 * curvature
    box = config.geometry.patches.tract_box
    x, y, strength = _BUMPS.get(index % len(_POINTINGS), (0.5, 0.5, 0.0))
    return SkyModel(
        level=level,
        gradient=(float(gradient[0]), float(gradient[1])),
        curvature=(float(curvature[0]), float(curvature[1]), float(curvature[2])),
        bump=config.bump * strength,
        bump_x=x * box.width,
        bump_y=y * box.height,
        bump_sigma=config.bump_sigma * config.size,
        middle=(0.5 * (box.width - 1), 0.5 * (box.height - 1)),
        half=0.5 * config.size,
    )


def _trails(config: SimulationConfig, index: int) -> tuple[Trail, ...]:
    if index not in _TRAILS:
        return ()
    peak, masked = _TRAILS[index]
    box = config.geometry.patches.tract_box
    rng = stream(config.seed, Stream.VISITS, index, 2)
    x, y = rng.uniform(0.35, 0.65, 2)
    angle = float(rng.uniform(0.0, 180.0))
    return (Trail(float(x * box.width), float(y * box.height), angle, peak, 2.2, masked),)


def _footprint(config: SimulationConfig, index: int) -> Footprint:
    box, size = config.geometry.patches.tract_box, float(config.size)
    if _in_strip(config, index):
        return _beside(_footprint(config, _REFERENCE), box, size)
    if config.pointings == "broad" and index in _BROAD:
        x, y, half_x, half_y, angle = _BROAD[index]
    elif index < len(_POINTINGS):
        x, y, half_x, half_y, angle = _POINTINGS[index]
    else:
        rng = stream(config.seed, Stream.VISITS, index, 3)
        x, y = rng.uniform(0.3, 0.7, 2).tolist()
        half_x, half_y = rng.uniform(0.35, 0.45, 2).tolist()
        angle = float(rng.uniform(-45.0, 45.0))
    return _mosaic(
        x * box.width, y * box.height, angle, half_x * box.width, half_y * box.height, size
    )


def _in_strip(config: SimulationConfig, index: int) -> bool:
    last = min(6, config.visits - 1)
    return config.pointings == "strip" and config.visits >= _MIN_VISITS_FOR_STRIP and index == last


def _beside(reference: Footprint, box: Box, size: float) -> Footprint:
    """Return a narrow footprint on the right of the reference, a little apart from it."""
    half = 0.15 * size
    along = reference.half_width + 0.015 * size + half
    angle = math.radians(reference.angle)
    x = reference.x + along * math.cos(angle)
    y = reference.y + along * math.sin(angle)
    return _mosaic(x, y, reference.angle, half, 0.75 * box.height, size)


def _mosaic(
    x: float, y: float, angle: float, half_x: float, half_y: float, size: float
) -> Footprint:
    """Fill a rectangle with detectors about twice as high as wide."""
    gap = max(4.0, 0.004 * size)
    columns = max(1, round(2 * half_x / (0.14 * size)))
    rows = max(1, round(2 * half_y / (0.28 * size)))
    width = (2 * half_x + gap) / columns - gap
    height = (2 * half_y + gap) / rows - gap
    return Footprint(x, y, angle, columns, rows, width, height, gap)
