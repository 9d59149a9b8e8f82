"""What goes into the solution for the offsets besides data, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.observations import Observations
from bgmatch_dask.background.visits import Visit
from bgmatch_dask.errors import ConfigError
from bgmatch_dask.geometry import SuperpixelGrid

__all__ = ("Component", "Flag", "Offset", "PairResidual", "Solution", "SolveConfig", "VisitFigures")

Array = NDArray[np.float64]


class Flag(IntFlag):
    """Where an offset comes from, bits per superpixel."""

    MEASURED = 1
    """A difference was measured on this superpixel."""
    INTERPOLATED = 2
    """Between measured superpixels."""
    EXTRAPOLATED = 4
    """Beyond the measured superpixels: a low-order continuation."""
    DISCONNECTED = 8
    """No chain of overlaps leads to the reference: the level is arbitrary."""


@dataclass(frozen=True, slots=True)
class SolveConfig:
    """How offsets are modelled and solved."""

    order: Literal["surface"] | int = "surface"
    """``surface``: smooth grid of nodes; 0 to 6: one polynomial of this order per visit."""
    smoothing: float | None = None
    """Strength of the smoothness; None: chosen from the data, for every visit."""
    slope_prior: float | None = None
    """Strength of the ridge on slopes of visits that are not anchored; None: from the data."""
    min_fraction: float = 0.05
    """Smallest share of good pixels that a superpixel of a difference needs to be used."""
    anchor_overlap: float = 0.4
    """Share of a visit's superpixels and extents that must be measured against anchored visits
    for its slope to need no prior."""
    huber: float = 2.5
    """Residuals beyond this many sigma are weighted down."""
    n_robust: int = 4
    """Iterations of the robust weights."""
    n_strength: int = 6
    """Iterations of the choice of the strengths."""
    node_pitch: int | None = None
    """Superpixels per node of the result; None: one."""
    observation_limit: float = 1e7
    """Differences of superpixels beyond which only two are used per visit and superpixel."""
    work_limit: float = 1e10
    """Operations of one joint solution beyond which it is made on coarser cells, and details are
    added on the superpixels."""

    def __post_init__(self) -> None:
        """Refuse what cannot be solved."""
        if self.order != "surface" and not (isinstance(self.order, int) and 0 <= self.order <= 6):
            raise ConfigError(
                "order-invalid",
                f"The order of the offsets is 'surface' or 0 to 6, got {self.order!r}",
                where="match.order",
            )
        for name in ("smoothing", "slope_prior"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(
                    "smoothing-invalid", f"{name} must not be negative, got {value}", where="match"
                )
        if self.node_pitch is not None and self.node_pitch < 1:
            raise ConfigError("pitch-invalid", f"node_pitch must be >= 1, got {self.node_pitch}")


@dataclass(frozen=True, slots=True)
class Offset:
    """The smooth surface that is added to one visit."""

    visit: Visit
    """Label of the visit."""
    grid: SuperpixelGrid
    """Superpixels of the tract."""
    pitch: int
    """Superpixels per node."""
    nodes: Array
    """Node values ``[y, x]``, unit of the image. Node ``i`` of an axis lies
    ``(i − 2) · pitch`` superpixels after the centre of the first one: two guard nodes come
    before the tract, and enough follow it for the cubic kernel."""
    variance: Array
    """Variance of the offset at the superpixels ``(sy, sx)``, unit squared."""
    flags: NDArray[np.uint8]
    """Bits of `Flag`, per superpixel ``(sy, sx)``."""


@dataclass(frozen=True, slots=True)
class Component:
    """Visits that overlaps tie together."""

    visits: tuple[Visit, ...]
    """Members, in order."""
    gauge: Visit
    """The member whose offset is zero."""
    has_reference: bool
    """Whether the gauge is the reference of the tract."""


@dataclass(frozen=True, slots=True)
class PairResidual:
    """How well one pair of visits agrees after matching."""

    hub: Visit
    """First visit."""
    visit: Visit
    """Second visit: the difference is hub − visit."""
    n_superpixels: int
    """Measured superpixels."""
    rms_before: float
    """Root mean square of the superpixel differences, unweighted."""
    rms: float
    """The same after matching."""
    weighted_rms: float
    """The same with inverse-variance and robust weights."""
    mean: float
    """Weighted mean residual, hub − visit."""
    chi2: float
    """Sum of squared residuals over their variances (photon noise of the mean)."""
    n_down: int
    """Superpixels with robust weight below one."""


@dataclass(frozen=True, slots=True)
class VisitFigures:
    """How one visit's offset was regularised."""

    anchored: bool
    """Whether broad overlaps determine the slope, so that it needed no prior."""
    smoothing: float
    """Strength of the smoothness; NaN for polynomials."""
    freedom: float
    """Effective parameters of the offset."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Offsets of all visits but the reference, and how they came about."""

    reference: Visit
    """Visit whose offset is zero; it has no entry in `offsets`."""
    grid: SuperpixelGrid
    """Superpixels of the tract."""
    offsets: Mapping[Visit, Offset]
    """Offsets by visit, in order of visit."""
    components: tuple[Component, ...]
    """The one of the reference first; a visit tied to nothing is one of its own."""
    figures: Mapping[Visit, VisitFigures]
    """Figures of every visit in `offsets` that was solved for."""
    pairs: tuple[PairResidual, ...]
    """Residuals of every measured pair, by hub and visit."""
    noise_factor: float
    """Variance of the residuals over their assumed variance, photon noise and systematic."""
    systematic: float
    """Systematic standard deviation of superpixel differences, unit of the image."""
    slope_prior: float
    """Strength of the ridge on slopes of visits that are not anchored."""
    pitch: int
    """Superpixels per node."""
    strengths: Mapping[Visit, Array]
    """Smoothness and ridges (slopes, then curvatures) of every visit, gauges with them; empty for
    polynomials."""
    iterations: int
    """Rounds of details that were added to a draft (0: solved at once)."""
    observations: Observations
    """The superpixel differences that were used."""
    prediction: Array
    """Modelled differences, one per observation."""
    robust: Array
    """Robust weight of each observation, in (0, 1]."""
    leverage: Array
    """Part of each observation's own degree of freedom that the fit uses up."""

    @property
    def residuals(self) -> dict[tuple[Visit, Visit], Array]:
        """Residuals ``d − (g_visit − g_hub)`` of each pair ``(sy, sx)``, NaN if not measured."""
        data = self.observations
        out = {pair: np.full(self.grid.shape, np.nan) for pair in data.pairs}
        residual = data.value - self.prediction
        for number, plane in enumerate(out.values()):
            own = data.pair == number
            plane[data.sy[own], data.sx[own]] = residual[own]
        return out
