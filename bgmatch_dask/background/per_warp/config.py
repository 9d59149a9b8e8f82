"""Options of per-warp matching."""

from __future__ import annotations

from dataclasses import dataclass

from bgmatch_dask.errors import ConfigError
from bgmatch_dask.maskplanes import CLIPPED, bits_of
from bgmatch_dask.numerics.chebyshev import Weighting
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.rendering import UndersampleStyle
from bgmatch_dask.numerics.statistics import Property, StatisticsControl

__all__ = ("PerWarpConfig",)

_STATISTICS = (Property.MEAN, Property.MEDIAN, Property.MEANCLIP)
_STYLES = (
    InterpStyle.CONSTANT,
    InterpStyle.LINEAR,
    InterpStyle.NATURAL_SPLINE,
    InterpStyle.AKIMA_SPLINE,
)


@dataclass(frozen=True, slots=True)
class PerWarpConfig:
    """How one warp is matched to another; defaults as upstream, names in brackets.

    Raises
    ------
    ConfigError
        ``per-warp-config`` for a value out of range, ``mask-plane-unknown``, ``clip-invalid``.
    """

    use_polynomial: bool = False
    """Model the difference with a Chebyshev polynomial instead of a spline (usePolynomial)."""
    order: int = 8
    """Highest total degree of the polynomial (order)."""
    mask: tuple[str, ...] = (
        "NO_DATA",
        "DETECTED",
        "DETECTED_NEGATIVE",
        "SAT",
        "BAD",
        "INTRP",
        "CR",
    )
    """Planes whose pixels are left out where either warp has them (badMaskPlanes)."""
    statistic: Property = Property.MEAN
    """MEAN, MEDIAN or MEANCLIP of the pixels of a cell (gridStatistic)."""
    undersample: UndersampleStyle = UndersampleStyle.REDUCE_INTERP_ORDER
    """What to do with too few cells (undersampleStyle); INCREASE is for polynomials only."""
    bin_size: int = 256
    """Size of a cell, about [pixels] (binSize)."""
    interpolation: InterpStyle = InterpStyle.AKIMA_SPLINE
    """CONSTANT, LINEAR, NATURAL_SPLINE or AKIMA_SPLINE (interpStyle)."""
    n_sigma: float = 3.0
    """Threshold of clips, in sigma (numSigmaClip)."""
    n_iter: int = 2
    """Number of clips (numIter)."""
    weight_coverage: float = 0.4
    """Weight of the coverage in the choice of a reference (bestRefWeightCoverage)."""
    weight_variance: float = 0.4
    """Weight of the variance of pixel values (bestRefWeightVariance)."""
    weight_level: float = 0.2
    """Weight of the mean level (bestRefWeightLevel)."""
    weighting: Weighting = Weighting.INVERSE_VARIANCE
    """Weight of the cells in a polynomial fit (approxWeighting); upstream's is INVERSE_SIGMA."""
    outlier_sigma: float | None = None
    """Leave footprints beyond this many sigma out of the difference: trails, transients, wings of
    stars. None: leave them in, as upstream."""
    error_epsilon: float = 1e-8
    """A cell whose error is not above this is no measurement to weigh (gridStdevEpsilon)."""

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        weights = (self.weight_coverage, self.weight_variance, self.weight_level)
        conditions = (
            (self.order >= 0, "order must be >= 0"),
            (self.bin_size >= 1, "bin_size must be >= 1 pixel"),
            (self.statistic in _STATISTICS, "statistic must be MEAN, MEDIAN or MEANCLIP"),
            (self.interpolation in _STYLES, f"interpolation must be one of {_names(_STYLES)}"),
            (all(0 <= w <= 1 for w in weights), "weights of the reference lie in [0, 1]"),
            (self.outlier_sigma is None or self.outlier_sigma > 0, "outlier_sigma must be > 0"),
            (self.error_epsilon >= 0, "error_epsilon must be >= 0"),
        )
        for holds, what in conditions:
            if not holds:
                raise ConfigError("per-warp-config", what[0].upper() + what[1:])
        _ = self.statistics

    @property
    def statistics(self) -> StatisticsControl:
        """Selection and clipping of pixels."""
        found = 0 if self.outlier_sigma is None else CLIPPED
        return StatisticsControl(self.n_sigma, self.n_iter, bits_of(self.mask) | found)


def _names(styles: tuple[InterpStyle, ...]) -> str:
    return ", ".join(style.name for style in styles)
