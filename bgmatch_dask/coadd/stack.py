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

from bgmatch_dask.maskplanes import CLIPPED, MASK_PLANES, NO_DATA
from bgmatch_dask.numerics.stacking import (
    TOGETHER,
    PlainSums,
    Shift,
    Sums,
    WeightedWarp,
    add_weighted,
    empty_sums,
)
from bgmatch_dask.numerics.superpixels import bin_statistics

__all__ = ("BAND", "TOGETHER", "MeanPlanes", "Shift", "SkyWeight", "Stack", "WeightedWarp")

BAND = 64
"""Rows whose sums are completed before those of the next."""
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


@dataclass(slots=True, eq=False)
class Stack:
    """Running sums of a weighted mean, float64, shape (y, x); its memory serves again and again."""

    sums: Sums
    """Σ w, Σ w · image, Σ w² · variance, number of warps, OR of the masks."""
    plain: PlainSums | None = None
    """Σ w and Σ w · image of the warps as they are, without shifts."""
    fresh: bool = True
    """Whether nothing was added yet."""

    @classmethod
    def empty(cls, shape: tuple[int, int], *, plain: bool = False) -> Stack:
        """Return sums of nothing.

        Parameters
        ----------
        shape
            Rows and columns. Where all warps of a mean come in one call of `add`, `BAND` rows are
            enough, and a single one for `TOGETHER` warps or fewer.
        plain
            Also take the mean of the warps without their shifts, and without its variance.
        """
        return cls(empty_sums(shape), (np.empty(shape), np.empty(shape)) if plain else None)

    def clear(self) -> None:
        """Forget all warps."""
        self.fresh = True

    def add(
        self, warps: Sequence[WeightedWarp], bad_bits: int, out: MeanPlanes | None = None
    ) -> None:
        """Add warps in place; their order fixes the last bits of the sums.

        Parameters
        ----------
        warps
            Warps of the shape of the sums. Some at once take less time than one by one.
        bad_bits
            Pixels with these bits are left out, as are pixels that are not finite.
        out
            After the last warps: where the mean goes. The next warps begin another mean.
        """
        used = _used(warps)
        groups = [used[i : i + TOGETHER] for i in range(0, len(used), TOGETHER)] or [[]]
        if out is None or not self.fresh or len(groups) == 1:
            for group in groups:
                self.add_few(group, bad_bits, out if group is groups[-1] else None)
            return
        # Sums of a few rows stay in the cache until the last warp.
        height, rows = out.image.shape[0], min(BAND, self.sums[0].shape[0])
        for top in range(0, height, rows):
            part = slice(top, min(top + rows, height))
            band = self.rows(part.stop - part.start)
            for group in groups:
                last = group is groups[-1]
                band.add_few(
                    [w.rows(part) for w in group], bad_bits, out.rows(part) if last else None
                )

    def rows(self, number: int) -> Stack:
        """Return the first rows of the sums, for another mean."""
        a, b, c, d, e = self.sums
        sums = (a[:number], b[:number], c[:number], d[:number], e[:number])
        plain = None if self.plain is None else (self.plain[0][:number], self.plain[1][:number])
        return Stack(sums, plain)

    def add_few(
        self, warps: Sequence[WeightedWarp], bad_bits: int, out: MeanPlanes | None = None
    ) -> None:
        """Do as `add` does for at most `TOGETHER` warps whose weights are good."""
        mean = None
        if out is not None:
            mean = ((out.image, out.variance, out.mask, out.nimage), out.plain, NO_DATA)
        add_weighted(
            warps,
            bad_bits,
            self.sums,
            outlier_bits=CLIPPED,
            plain=self.plain,
            fresh=self.fresh,
            mean=mean,
        )
        self.fresh = out is not None

    def planes(self) -> dict[str, NDArray[Any]]:
        """Return image, variance (NaN where empty), mask and nimage of the mean."""
        out, fresh = MeanPlanes.empty(self.sums[0].shape), self.fresh
        self.add_few((), 0, out)
        self.fresh = fresh
        return out.by_name


def _used(warps: Sequence[WeightedWarp]) -> list[WeightedWarp]:
    return [w for w in warps if np.isfinite(w.weight) and w.weight > 0]


@dataclass(frozen=True, slots=True, eq=False)
class MeanPlanes:
    """Planes that a mean is put into, shape (y, x)."""

    image: NDArray[np.float32]
    """Mean, NaN where there is none."""
    variance: NDArray[np.float32]
    """Its variance."""
    mask: NDArray[np.int32]
    """OR of the masks of the pixels used; NO_DATA where there are none."""
    nimage: NDArray[np.int32]
    """Number of warps that gave a pixel."""
    plain: NDArray[np.float32]
    """Mean of the warps as they are; empty where it is not asked for."""

    @classmethod
    def empty(cls, shape: tuple[int, ...], *, plain: bool = False) -> MeanPlanes:
        """Return planes of any content."""
        floats = (np.empty(shape, np.float32), np.empty(shape, np.float32))
        bits = (np.empty(shape, np.int32), np.empty(shape, np.int32))
        return cls(*floats, *bits, np.empty(shape if plain else (0, 0), np.float32))

    def rows(self, part: slice) -> MeanPlanes:
        """Return some rows of the planes, which share their memory."""
        floats, bits = (self.image[part], self.variance[part]), (self.mask[part], self.nimage[part])
        return MeanPlanes(*floats, *bits, self.plain[part] if self.plain.size else self.plain)

    @property
    def by_name(self) -> dict[str, NDArray[Any]]:
        """The planes that a coadd stores."""
        names = ("image", "variance", "mask", "nimage")
        return dict(zip(names, (self.image, self.variance, self.mask, self.nimage), strict=True))
