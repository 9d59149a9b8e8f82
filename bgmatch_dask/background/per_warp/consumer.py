"""What a coadd makes of a match: the gate, and the noise of the match.

Source: LSST ``AssembleCoaddTask`` until 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.per_warp.match import WarpFigures

__all__ = ("GateDecision", "WarpGate", "add_match_noise", "weigh_match")


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Whether a match is good enough to be stacked."""

    passed: bool
    """Stack it."""
    reasons: tuple[str, ...]
    """``ratio``, ``rms``: the limits that it exceeds."""


@dataclass(frozen=True, slots=True)
class WarpGate:
    """Limits beyond which a matched warp is left out of the stack."""

    max_ratio: float = 1.1
    """Largest matched MSE over difference variance (maxMatchResidualRatio)."""
    max_rms: float = 1.0
    """Largest fit RMS [image unit] (maxMatchResidualRMS); infinite for none."""

    def decide(self, figures: WarpFigures) -> GateDecision:
        """Judge a match; a figure that is not finite never passes."""
        limits = (
            ("ratio", figures.ratio, self.max_ratio),
            ("rms", figures.fit_rms, self.max_rms),
        )
        reasons = tuple(
            name for name, value, most in limits if not (math.isfinite(value) and value <= most)
        )
        return GateDecision(not reasons, reasons)


def add_match_noise(variance: NDArray[np.float32], figures: WarpFigures) -> NDArray[np.float32]:
    """Return the variance of a matched warp, ``variance + fit_rms²`` [image unit squared]."""
    return variance + np.float32(figures.fit_rms**2)


def weigh_match(weight: float, figures: WarpFigures) -> float:
    """Return the weight of a matched warp in a stack, ``1 / (1 / weight + fit_rms²)``.

    Parameters
    ----------
    weight
        Weight of the warp before matching, an inverse variance, > 0.
    figures
        Figures of the match.
    """
    return 1.0 / (1.0 / weight + figures.fit_rms**2)
