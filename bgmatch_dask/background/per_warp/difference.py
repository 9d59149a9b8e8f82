"""The difference of two warps: images subtract, masks unite, variances add."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.outliers import outlier_footprints
from bgmatch_dask.background.per_warp.config import PerWarpConfig
from bgmatch_dask.errors import MatchError
from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import CLIPPED
from bgmatch_dask.numerics.statistics import StatisticsControl
from bgmatch_dask.warps.warp import Warp

__all__ = ("Difference", "subtract")


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """reference − science; planes have the shape of the box."""

    box: Box
    """Pixels that the planes cover."""
    image: NDArray[np.float32]
    """Difference [image unit]; not finite where either warp has no data."""
    variance: NDArray[np.float32]
    """Sum of the variances [image unit squared]."""
    mask: NDArray[np.int32]
    """Union of the masks."""

    def good(self, control: StatisticsControl) -> NDArray[np.bool_]:
        """Return which pixels are measured."""
        good: NDArray[np.bool_] = np.isfinite(self.image)
        good &= (self.mask & control.and_mask) == 0
        return good


def subtract(reference: Warp, science: Warp, config: PerWarpConfig) -> Difference:
    """Return reference − science; the mask marks outliers as ``CLIPPED`` where they are wanted out.

    Raises
    ------
    MatchError
        ``per-warp-box`` when the warps do not cover the same pixels.
    """
    if reference.box != science.box:
        raise MatchError(
            "per-warp-box",
            f"The warps cover different pixels: {reference.box} and {science.box}",
            fix="Resample both onto one grid.",
        )
    with np.errstate(invalid="ignore", over="ignore"):
        image = reference.image - science.image
        variance = reference.variance + science.variance
    mask = reference.mask | science.mask
    difference = Difference(reference.box, image, variance, mask)
    if config.outlier_sigma is not None:
        good = difference.good(config.statistics)
        found = outlier_footprints(
            reference.image, science.image, good, n_sigma=config.outlier_sigma
        )
        mask[found] |= CLIPPED
    return difference
