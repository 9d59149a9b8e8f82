"""What statistics there are, which pixels they count, and what they are returned as."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from bgmatch_dask.errors import ConfigError

__all__ = ("Property", "Statistics", "StatisticsControl")


class Property(StrEnum):
    """What can be measured; the names are those of afw."""

    NPOINT = "NPOINT"
    """Number of good pixels, before clipping."""
    MEAN = "MEAN"
    """Mean of the good pixels."""
    STDEV = "STDEV"
    """Square root of VARIANCE."""
    VARIANCE = "VARIANCE"
    """Variance of the good pixels, n - 1 estimator."""
    MEDIAN = "MEDIAN"
    """Median of the good pixels."""
    IQRANGE = "IQRANGE"
    """Distance of the quartiles."""
    MEANCLIP = "MEANCLIP"
    """Mean of the pixels that the last clip keeps."""
    STDEVCLIP = "STDEVCLIP"
    """Square root of VARIANCECLIP."""
    VARIANCECLIP = "VARIANCECLIP"
    """Variance of the pixels that the last clip keeps, n - 1 estimator."""
    MEANSQUARE = "MEANSQUARE"
    """Mean of the squares."""
    SUM = "SUM"
    """Sum of the good pixels (times their weights, when weighted)."""
    MIN = "MIN"
    """Smallest good pixel."""
    MAX = "MAX"
    """Largest good pixel."""
    NCLIPPED = "NCLIPPED"
    """Good pixels that the last clip left out."""
    NMASKED = "NMASKED"
    """Pixels that are not good."""


@dataclass(frozen=True, slots=True)
class StatisticsControl:
    """Which pixels count, how they are clipped and weighted, and what errors mean.

    Raises
    ------
    ConfigError
        ``clip-invalid``, ``weighting-unknown`` or ``error-mode-unknown``.
    """

    n_sigma: float = 3.0
    """Half-width of a clip, in standard deviations."""
    n_iter: int = 3
    """Number of clips; all of them are made."""
    and_mask: int = 0
    """Pixels with any of these mask bits are left out."""
    nan_safe: bool = True
    """Leave out pixels that are not finite as float32. Off, the caller promises there are none:
    a NaN makes moments and order statistics NaN."""
    weighting: Literal["none", "multiplicative", "inverse_variance"] = "none"
    """`inverse_variance` also leaves out pixels without a positive variance."""
    error: Literal["sample", "input_variance", "mosaic"] = "sample"
    """Error of a mean: from the scatter, from the variances of independent pixels, or the mean
    variance itself, for pixels whose errors are the same error."""

    def __post_init__(self) -> None:
        """Refuse a clip that keeps nothing by definition, and unknown modes."""
        if not (math.isfinite(self.n_sigma) and self.n_sigma > 0 and self.n_iter >= 1):
            raise ConfigError(
                "clip-invalid",
                f"Clipping needs n_sigma > 0 and n_iter >= 1, got {self.n_sigma} and {self.n_iter}",
            )
        if self.weighting not in ("none", "multiplicative", "inverse_variance"):
            raise ConfigError("weighting-unknown", f"There is no weighting {self.weighting!r}")
        if self.error not in ("sample", "input_variance", "mosaic"):
            raise ConfigError("error-mode-unknown", f"There is no error mode {self.error!r}")


@dataclass(frozen=True, slots=True)
class Statistics:
    """Every property of one set of pixels, with its error."""

    values: Mapping[Property, float]
    """Value of each property; NaN where it is undefined."""
    errors: Mapping[Property, float]
    """Standard error of each; 0 for what is counted or summed, NaN where undefined."""
    or_mask: int
    """OR of the mask bits of the good pixels."""

    def value(self, name: str) -> float:
        """Return a property; raises `ConfigError` ``statistic-unknown``."""
        return self.values[_property(name)]

    def error(self, name: str) -> float:
        """Return the standard error of a property; raises `ConfigError` ``statistic-unknown``."""
        return self.errors[_property(name)]


def _property(name: str) -> Property:
    try:
        return Property(name)
    except ValueError as error:
        raise ConfigError(
            "statistic-unknown",
            f"There is no statistic {name!r}",
            fix=f"Known statistics: {', '.join(Property)}.",
        ) from error
