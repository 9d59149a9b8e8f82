"""The weighted mean of the warps of one patch.

Each warp has one weight, the inverse of its sky variance. Weights from the variance of each
pixel would follow the light of the sources: where seeing differs they cost 1.2 % of the flux of
bright stars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.maskplanes import MASK_PLANES, NO_DATA
from bgmatch_dask.numerics.stacking import add_weighted, weighted_mean
from bgmatch_dask.numerics.superpixels import bin_statistics

__all__ = ("SkyWeight", "Stack", "WeightedWarp")

_DETECTED = (1 << MASK_PLANES["DETECTED"]) | (1 << MASK_PLANES["DETECTED_NEGATIVE"])


_ENOUGH = 1_000_000
"""Pixels that a sky variance is measured on, taken from rows at equal distances."""


@dataclass(frozen=True, slots=True)
class SkyWeight:
    """Sky variance of one warp."""

    variance: float
    """Clipped mean of the variance plane away from sources, unit squared; NaN if there is none."""

    @classmethod
    def measure(
        cls, variance: NDArray[np.float32], mask: NDArray[np.int32], bad_bits: int
    ) -> SkyWeight:
        """Measure the sky variance of a warp.

        Parameters
        ----------
        variance, mask
            Planes of the warp, shape (y, x).
        bad_bits
            Pixels with these bits are left out; so are detections, unless nothing else is left.
        """
        # The mean of a million pixels is good to a thousandth of the scatter of one.
        step = max(variance.size // _ENOUGH, 1)
        variance, mask = np.ascontiguousarray(variance[::step]), np.ascontiguousarray(mask[::step])
        height, width = variance.shape
        edges = (np.array([0, width]), np.array([0, height]))
        for bits in (bad_bits | _DETECTED, bad_bits):
            mean = float(bin_statistics(variance, mask, bits, *edges).mean[0, 0])
            if np.isfinite(mean) and mean > 0:
                return cls(mean)
        return cls(float("nan"))


@dataclass(frozen=True, slots=True, eq=False)
class WeightedWarp:
    """A warp on its way into a mean."""

    image: NDArray[np.float32]
    """Pixels, shape (y, x)."""
    variance: NDArray[np.float32]
    """Their variances, unit squared."""
    mask: NDArray[np.int32]
    """Their mask bits."""
    weight: float
    """Inverse sky variance; a warp whose weight is not positive and finite adds nothing."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Running sums of a weighted mean, float64, shape (y, x)."""

    weight: NDArray[np.float64]
    """Σ w."""
    total: NDArray[np.float64]
    """Σ w · image."""
    variance: NDArray[np.float64]
    """Σ w² · variance."""
    n_image: NDArray[np.int32]
    """Number of warps that gave a pixel."""
    mask: NDArray[np.int32]
    """OR of the masks of the pixels used."""

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Stack:
        """Return sums of nothing."""
        return cls(
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(shape, np.int32),
            np.zeros(shape, np.int32),
        )

    def add(self, warps: Sequence[WeightedWarp], bad_bits: int) -> None:
        """Add warps in place; their order fixes the last bits of the sums.

        Parameters
        ----------
        warps
            Warps of the shape of the sums. Some at once take less time than one by one.
        bad_bits
            Pixels with these bits are left out, as are pixels that are not finite.
        """
        used = [w for w in warps if np.isfinite(w.weight) and w.weight > 0]
        add_weighted(
            [(w.image, w.variance, w.mask) for w in used],
            [w.weight for w in used],
            bad_bits,
            (self.weight, self.total, self.variance, self.n_image, self.mask),
        )

    def planes(self) -> dict[str, NDArray[Any]]:
        """Return image, variance (NaN where empty), mask and nimage of the mean."""
        sums = (self.weight, self.total, self.variance, self.n_image, self.mask)
        image, variance, mask = weighted_mean(*sums, NO_DATA)
        return {"image": image, "variance": variance, "mask": mask, "nimage": self.n_image}
