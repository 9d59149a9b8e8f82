"""How backgrounds are measured, matched and stacked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bgmatch_dask.config.section import PlaneNames, Section

__all__ = ("BackgroundConfig", "CoaddConfig", "MatchConfig", "PerWarpSection", "ReferenceConfig")


class BackgroundConfig(Section):
    """How backgrounds are measured on superpixels."""

    bin_size: int = Field(default=128, ge=4)
    """Size of a superpixel [pixels] (upstream: xBin, yBin)."""
    n_sigma: float = Field(default=3.0, gt=0)
    """Clipping threshold in sigma (upstream: numSigmaClip)."""
    n_iter: int = Field(default=3, ge=1)
    """Number of clipping iterations (upstream: numIter)."""
    min_frac: float = Field(default=0.1, ge=0, le=1)
    """Smallest share of good pixels that a superpixel needs to be used (upstream: minFrac)."""
    mask: PlaneNames = (
        "BAD",
        "SAT",
        "CR",
        "EDGE",
        "NO_DATA",
        "SENSOR_EDGE",
        "STREAK",
        "UNMASKEDNAN",
    )
    """Mask planes whose pixels are never used (upstream: mask)."""


class ReferenceConfig(Section):
    """How the reference visit is chosen."""

    visit: str | None = None
    """Visit to use as the reference (upstream: refWarpVisit); default: lowest cost."""
    chooser: str = "tract_cost"
    """`tract_cost`, `legacy_cost`, `depth`, `visit=LABEL`, or another package's."""
    mask_detected: bool = True
    """Leave detected sources out of the sums that the choice is made from."""
    built: bool = False
    """Match all visits once more to a stack of the matched hubs, smooth over the whole tract."""
    visit_table: str | None = None
    """CSV file (visit, exposure_time, fwhm) for the chooser `depth`; default: from the headers."""
    weight_chi2: float = Field(default=0.3, ge=0, le=1)
    """Weight of the χ² of a plane (upstream: bestRefWeightChi2)."""
    weight_variance: float = Field(default=0.3, ge=0, le=1)
    """Weight of the variance (upstream: bestRefWeightVariance)."""
    weight_coverage: float = Field(default=0.4, ge=0, le=1)
    """Weight of the measured coverage (upstream: bestRefWeightGlobalCoverage)."""
    weight_level: float = Field(default=0.2, ge=0, le=1)
    """Weight of the level, where the chooser is `legacy_cost` (upstream: bestRefWeightLevel)."""
    weight_depth: float = Field(default=0.6, ge=0, le=1)
    """Weight of the depth, where the chooser is `depth`."""


class MatchConfig(Section):
    """How offsets are modelled and solved."""

    method: Literal["reference", "joint", "per_warp"] = "joint"
    """`joint`: all visits at once; `reference`: each against it; `per_warp`: each warp alone."""
    order: Literal["surface"] | Annotated[int, Field(ge=0, le=6)] = "surface"
    """`surface`: smooth superpixel grid; 0…6: one polynomial of this order per visit."""
    smoothing: float | None = Field(default=None, ge=0)
    """Strength of the smoothness prior; default: chosen from the data."""
    difference: Literal["pixel", "common_mask"] = "pixel"
    """`pixel`: each pair pixel by pixel; `common_mask`: each visit once, under one mask for all."""
    mask_detected: bool = True
    """Leave detected sources out of the differences (needed where seeing differs)."""
    outlier_sigma: float | None = Field(default=4.0, gt=0)
    """Leave footprints beyond this many sigma out of a difference (trails, transients); or none."""
    hubs: int | None = Field(default=None, ge=1)
    """Largest number of hub visits; default: chosen from the coverage."""
    iterations: int = Field(default=0, ge=0, le=20)
    """Build the reference from the matched hubs and match to it, so often; 0: only if asked for."""
    cross_validation: int = Field(default=0, ge=0, le=50)
    """Leave overlaps out in so many turns and predict them, each turn a solution; 0: not at all."""
    gate: Literal["warn", "drop", "fail"] = "warn"
    """A match beyond a limit: `warn` says so, `drop` leaves it out of the coadd, `fail` stops."""
    gate_ratio: float = Field(default=1.1, gt=0)
    """Largest matched MSE / difference variance of a match (upstream: maxMatchResidualRatio)."""
    gate_rms: float | None = Field(default=None, gt=0)
    """Largest fit RMS of a match [image unit] (upstream: maxMatchResidualRMS); default: none."""
    write_warps: bool = False
    """Write matched warps to the store; otherwise they are computed when read."""


class PerWarpSection(Section):
    """How each warp is modelled where match.method is per_warp; masks and clips: background."""

    polynomial: bool = False
    """Fit a polynomial to the cells instead of a spline (upstream: usePolynomial)."""
    order: int = Field(default=8, ge=0)
    """Highest total degree of the polynomial (upstream: order)."""
    cell_size: int = Field(default=256, ge=4)
    """Size of a cell, about [pixels] (upstream: binSize)."""
    statistic: Literal["MEAN", "MEDIAN", "MEANCLIP"] = "MEAN"
    """Value of a cell (upstream: gridStatistic)."""
    interpolation: Literal["CONSTANT", "LINEAR", "NATURAL_SPLINE", "AKIMA_SPLINE"] = "AKIMA_SPLINE"
    """Interpolation of a spline (upstream: interpStyle)."""
    undersample: Literal["REDUCE_INTERP_ORDER", "THROW_EXCEPTION", "INCREASE_NXNYSAMPLE"] = (
        "REDUCE_INTERP_ORDER"
    )
    """What to do with too few cells (upstream: undersampleStyle)."""
    weighting: Literal["inverse_variance", "inverse_sigma", "none"] = "inverse_variance"
    """Weight of a cell in a polynomial fit (upstream: approxWeighting)."""


class CoaddConfig(Section):
    """How matched warps are stacked."""

    mask: PlaneNames = ("BAD", "SAT", "CR", "EDGE", "NO_DATA", "SENSOR_EDGE", "STREAK")
    """Mask planes whose pixels are left out of the coadd."""
    outliers: bool = False
    """Leave the outlier masks of the differences (match.outlier_sigma) out of the matched coadd."""
    write_unmatched: bool = False
    """Write the coadd of the unmatched warps to the store; otherwise it is computed when read."""
