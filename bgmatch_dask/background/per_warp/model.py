"""The smooth model of the difference of two warps: a spline or a polynomial through cells."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.per_warp.config import PerWarpConfig
from bgmatch_dask.background.per_warp.difference import Difference
from bgmatch_dask.background.per_warp.upstream import rebinned_samples, upstream_order
from bgmatch_dask.errors import BgmatchError, InputError, MatchError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.background_list import BackgroundList
from bgmatch_dask.numerics.chebyshev import ChebyshevControl, ChebyshevFit, Weighting
from bgmatch_dask.numerics.gridded import (
    BackgroundControl,
    GriddedBackground,
    measure_background,
)
from bgmatch_dask.numerics.rendering import UndersampleStyle

__all__ = ("WarpModel", "draw_model", "fit_model")


@dataclass(frozen=True, slots=True, eq=False)
class WarpModel:
    """The offset of one warp, which draws exactly what was added to its pixels (fault L-12)."""

    background: GriddedBackground
    """Cells of the difference; its control holds the styles, or the polynomial, of the model."""
    polynomial: ChebyshevFit | None
    """The fitted polynomial; None for a spline."""
    upstream: bool = False
    """Whether splines continue beyond their nodes as LSST's do."""

    @property
    def box(self) -> Box:
        """Pixels of the model."""
        return self.background.box

    def render(self, box: Box | None = None) -> NDArray[np.float32]:
        """Draw the offset; its whole box when None. Raises as `GriddedBackground.render`."""
        if self.polynomial is not None:
            return self.polynomial.render(box)
        return self.background.render(box, upstream=self.upstream).image

    def as_list(self) -> BackgroundList:
        """Return the model as a list of one background, as it is written to files."""
        return BackgroundList([self.background])


def fit_model(
    difference: Difference, config: PerWarpConfig, *, upstream: bool = False
) -> WarpModel:
    """Model a difference.

    Parameters
    ----------
    difference
        What to model.
    config
        Cells, kind of the model, and what to do with too few cells.
    upstream
        Reproduce the faults L-1 to L-4 and L-8 of upstream.

    Returns
    -------
    WarpModel
        Offset on the box of the difference.

    Raises
    ------
    InputError
        A `ValueError`: ``per-warp-no-overlap`` when no pixel is measured,
        ``per-warp-bin-too-large`` and ``per-warp-undersampled`` when the cells do not determine a
        polynomial of the wanted order and ``config.undersample`` permits no other.
    MatchError
        A `RuntimeError`: ``per-warp-model`` when no cell has a usable variance.

    Notes
    -----
    Without ``upstream``, the undersample style decides whenever cells are too few, also when the
    image is small (L-2); the order is reduced to what the rank of the fit allows (L-3); cells grow
    smaller, not more numerous by mistake, until they determine the order (L-1).
    """
    if not difference.good(config.statistics).any():
        raise _no_overlap()
    if config.use_polynomial:
        fit = _upstream_polynomial if upstream else _polynomial
        return fit(difference, config)
    background = _measure(difference, config, *_samples(difference, config))
    if not np.isfinite(background.values).any():
        raise _no_overlap()
    return WarpModel(background, None, upstream)


def draw_model(model: WarpModel) -> NDArray[np.float32]:
    """Draw a whole offset.

    Raises
    ------
    MatchError
        ``per-warp-model`` when a spline has too few cells and the undersample style permits no
        other.
    """
    try:
        return model.render()
    except BgmatchError as error:
        raise MatchError(
            "per-warp-model", f"The model cannot be drawn: {error.what}", fix=error.fix
        ) from error


def _no_overlap() -> InputError:
    return InputError(
        "per-warp-no-overlap",
        "No pixel is good in both warps, or too few to measure a cell",
        fix="Choose a reference warp that overlaps this one.",
    )


def _samples(difference: Difference, config: PerWarpConfig) -> tuple[int, int]:
    box = difference.box
    return -(-box.width // config.bin_size), -(-box.height // config.bin_size)


def _measure(difference: Difference, config: PerWarpConfig, nx: int, ny: int) -> GriddedBackground:
    control = BackgroundControl(
        nx, ny, config.interpolation, config.undersample, config.statistic, config.statistics
    )
    return measure_background(
        difference.image,
        control,
        mask=difference.mask,
        variance=difference.variance,
        x0=difference.box.x0,
        y0=difference.box.y0,
    )


def _with_polynomial(background: GriddedBackground, order: int, weighting: Weighting) -> WarpModel:
    control = ChebyshevControl(order, weighting)
    try:
        fit = background.approximate(control)
    except MatchError as error:
        raise MatchError("per-warp-model", error.what, fix=error.fix) from error
    # The control remembers the order and the weights that were used, so that files do too.
    kept = replace(background, control=replace(background.control, approximation=control))
    return WarpModel(kept, fit)


def _upstream_polynomial(difference: Difference, config: PerWarpConfig) -> WarpModel:
    order, wanted_bin, uniform = upstream_order(difference, config)
    samples = _samples(difference, config)
    if wanted_bin is not None:
        samples = rebinned_samples(difference, wanted_bin)
    weighting = config.weighting
    if weighting is Weighting.INVERSE_VARIANCE:
        weighting = Weighting.INVERSE_SIGMA
    background = _measure(difference, config, *samples)
    return _with_polynomial(background, order, Weighting.NONE if uniform else weighting)


def _polynomial(difference: Difference, config: PerWarpConfig) -> WarpModel:
    small = min(difference.box.shape) < config.bin_size
    if small and config.undersample is UndersampleStyle.THROW_EXCEPTION:
        raise InputError(
            "per-warp-bin-too-large",
            f"Cells of {config.bin_size} pixels are larger than the image, {difference.box.shape}",
            fix="Use a smaller bin_size.",
        )
    background, weighting = _weighed(difference, config)
    model = _determined(background, config.order, weighting)
    if model is not None:
        return model
    if config.undersample is UndersampleStyle.REDUCE_INTERP_ORDER:
        return _of_lower_order(background, config.order, weighting)
    if config.undersample is UndersampleStyle.INCREASE_NXNYSAMPLE:
        return _of_smaller_cells(difference, config, background)
    raise _undersampled(background, config.order, "Use another undersample style, or")


def _weighed(difference: Difference, config: PerWarpConfig) -> tuple[GriddedBackground, Weighting]:
    """Return the cells and their weighting: none when no cell has an error worth the name."""
    background = _measure(difference, config, *_samples(difference, config))
    # Square in float64: the square of a small epsilon is below the range of float32.
    measured = background.variance.astype(np.float64) > config.error_epsilon**2
    if config.weighting is Weighting.NONE or not measured.any():
        return background, Weighting.NONE
    # A cell of equal pixels is no measurement of infinite weight.
    variance = np.where(measured, background.variance, np.float32(np.nan))
    return replace(background, variance=variance), config.weighting


def _determined(
    background: GriddedBackground, order: int, weighting: Weighting
) -> WarpModel | None:
    """Return the polynomial if the cells determine all of its coefficients."""
    used = _used(background, weighting)
    # Exact where rounding could let a dependent term pass as independent.
    if min(_spread(used)) <= order:
        return None
    model = _with_polynomial(background, order, weighting)
    fit = model.polynomial
    return model if fit is not None and fit.determined else None


def _of_lower_order(background: GriddedBackground, order: int, weighting: Weighting) -> WarpModel:
    for lower in range(order - 1, -1, -1):
        model = _determined(background, lower, weighting)
        if model is not None:
            return model
    raise _undersampled(background, 0, "Leave the warp out, or")


def _of_smaller_cells(
    difference: Difference, config: PerWarpConfig, background: GriddedBackground
) -> WarpModel:
    weighting, cell = config.weighting, min(config.bin_size, *difference.box.shape)
    while cell > 1:
        found = min(_spread(_used(background, weighting)))
        # Upstream's formula; where cells on the rim of the data break it, it is applied again.
        cell = min(cell - 1, max(1, found * cell // (config.order + 1)) if found else cell // 2)
        background, weighting = _weighed(difference, replace(config, bin_size=cell))
        model = _determined(background, config.order, weighting)
        if model is not None:
            return model
    raise _undersampled(background, config.order, "Use a lower order, or")


def _used(background: GriddedBackground, weighting: Weighting) -> NDArray[np.bool_]:
    used = np.isfinite(background.values)
    return used if weighting is Weighting.NONE else used & (background.variance > 0)


def _spread(used: NDArray[np.bool_]) -> tuple[int, int]:
    return int(used.any(axis=0).sum()), int(used.any(axis=1).sum())


def _undersampled(background: GriddedBackground, order: int, fix: str) -> InputError:
    measured = int(np.isfinite(background.values).sum())
    ny, nx = background.values.shape
    return InputError(
        "per-warp-undersampled",
        f"{measured} measured cells of {nx} x {ny} do not determine a polynomial of order {order}",
        fix=f"{fix} smaller cells.",
    )
