"""Light of one visit that is sharper than its surface.

A surface has one strength for the whole visit. Scattered light as small as two or three
superpixels is rare in it: it is smoothed away, and the superpixels on it lose their say as if they
were bad. They are not: where neighbours differ from all other visits in the same direction, it is
background of that visit. It is added to its surface superpixel by superpixel, after the
solution, so that it moves nothing else. One or two superpixels that stand out stay what they are:
bad.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label

from bgmatch_dask.background.layout import GUARD
from bgmatch_dask.background.robust import robust_scale
from bgmatch_dask.background.smoothing_strength import Tuned
from bgmatch_dask.numerics.surface_samples import sample_planes

__all__ = ("SharpLight", "find_sharp_light")

Array = NDArray[np.float64]
Plane = NDArray[np.bool_]

_LIMIT = 5.0
"""Standard deviations from which a superpixel stands out."""
_FEWEST = 3
"""Neighbours that make light of what stands out."""
_MOST = 0.25
"""Share of the visits on a superpixel that may stand out there; one may."""
_ROUNDS = 12
_AROUND = np.ones((3, 3), bool)


@dataclass(frozen=True, slots=True, eq=False)
class SharpLight:
    """What is added to the surface of one visit."""

    nodes: Array
    """Node values ``[y, x]`` on the window of the visit."""
    variance: Array
    """Their noise at the superpixels, in units of the noise of the solution."""
    n_superpixels: int
    """Superpixels that stand out."""


def find_sharp_light(tuned: Tuned) -> tuple[SharpLight | None, ...]:
    """Return the sharp light of every visit, None where there is none.

    Parameters
    ----------
    tuned
        A solution with one node per superpixel.
    """
    system, data = tuned.solver.system, tuned.data
    samples = system.samples
    count = samples.of_sites(np.ones(len(samples)))[samples.site]
    spread = (samples.photon + data.systematic) / data.observations.unit
    # A mean over few visits holds a part of each of them.
    free = 1.0 - 1.0 / np.maximum(count, 2.0)
    z = tuned.left / np.sqrt(free * (samples.photon + data.systematic))
    z = z / max(robust_scale(z), 1.0)
    # Where several visits differ, nobody can say from what.
    apart = samples.of_sites((np.abs(z) > _LIMIT).astype(np.float64))[samples.site]
    clear = apart <= np.maximum(_MOST * count, 1.0)

    def of_visit(visit: int) -> SharpLight | None:
        own, window = system.own(visit), system.layout.windows[visit]
        if system.rigid[visit]:
            return None
        shape = (window.ny - 2 * GUARD, window.nx - 2 * GUARD)
        at = (samples.sy[own] - window.y0, samples.sx[own] - window.x0)
        planes = np.zeros((3, *shape))
        for plane, values in zip(planes, (z * clear, tuned.left, spread), strict=True):
            plane[at] = values[own]
        return _of_planes(*planes)

    return tuple(system.each(of_visit))


def _of_planes(z: Array, left: Array, spread: Array) -> SharpLight | None:
    """Return what stands out of a plane of residuals, each with its noise; zero: not seen."""
    core = _clustered(z > _LIMIT) | _clustered(z < -_LIMIT)
    if not core.any():
        return None
    # The feet of a bump do not stand out: what is more than noise in them is kept.
    foot = binary_dilation(core, _AROUND) & ~core
    share = np.where(core, 1.0, np.where(foot, 1.0 - 1.0 / np.maximum(z**2, 1.0), 0.0))
    wanted = share * left
    nodes = np.pad(np.zeros_like(wanted), GUARD)
    inside = (slice(GUARD, -GUARD), slice(GUARD, -GUARD))
    for _ in range(_ROUNDS):
        nodes[inside] += wanted - sample_planes(nodes)[0]
    return SharpLight(nodes, share**2 * spread, int(core.sum()))


def _clustered(plane: Plane) -> Plane:
    """Keep what has enough neighbours that touch each other."""
    number, _ = label(plane, _AROUND)
    size = np.bincount(number.ravel())
    size[0] = 0
    out: Plane = size[number] >= _FEWEST
    return out
