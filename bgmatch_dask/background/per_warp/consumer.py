"""What a coadd makes of a match: the gate, and the noise of the match.

Source: LSST ``AssembleCoaddTask`` until 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.per_warp.match import WarpFigures

__all__ = ("GateDecision", "WarpGate", "add_match_noise")


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


def add_match_noise(
    variance: NDArray[np.float32], weight: float, figures: WarpFigures
) -> tuple[NDArray[np.float32], float]:
    """Account for the error of the match in a stack.

    Parameters
    ----------
    variance
        Variance of the warp [image unit squared], any shape; it is not changed.
    weight
        Weight of the warp in the stack, an inverse variance, > 0.
    figures
        Figures of the match.

    Returns
    -------
    variance : ndarray of float32
        Plus ``fit_rms²``.
    weight : float
        ``1 / (1 / weight + fit_rms²)``.
    """
    noise = figures.fit_rms**2
    return variance + np.float32(noise), 1.0 / (1.0 / weight + noise)
