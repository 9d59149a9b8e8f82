"""Two-dimensional Chebyshev polynomials fitted to the values of cells.

Source: LSST ``afw::math::Approximate`` and its ``Chebyshev1Function2``. Solved from the weighted
design matrix by singular values, not from the normal matrix: what the data do not determine is left
out (the solution of least norm is returned) and reported, where upstream returns whatever a
singular normal matrix gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bgmatch_dask.errors import ConfigError, MatchError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.compiling import kernel

__all__ = ("ChebyshevControl", "ChebyshevFit", "Weighting", "fit_chebyshev")


class Weighting(Enum):
    """Weight of a cell in a fit, from its variance."""

    NONE = "none"
    """1 for each cell."""
    INVERSE_VARIANCE = "inverse_variance"
    """1/σ²: the most precise fit of independent cells."""
    INVERSE_SIGMA = "inverse_sigma"
    """1/σ: what LSST applies to measured cells, whose variance plane holds σ (fault F-34)."""


@dataclass(frozen=True, slots=True)
class ChebyshevControl:
    """Which polynomial to fit."""

    order: int
    """Highest total degree, >= 0."""
    weighting: Weighting = Weighting.INVERSE_VARIANCE
    """Weight of the cells."""
    order_y: int | None = None
    """Degree along y; only the same as ``order`` (or None) is supported, as upstream."""

    def __post_init__(self) -> None:
        """Refuse orders that mean nothing."""
        if self.order < 0:
            raise ConfigError("chebyshev-order", f"The order must be >= 0, not {self.order}")
        if self.order_y is not None and self.order_y not in (self.order, -1):
            raise ConfigError(
                "chebyshev-orders-differ",
                f"Orders must be the same on both axes, not {self.order} and {self.order_y}",
            )


@dataclass(frozen=True, slots=True, eq=False)
class ChebyshevFit:
    """A fitted polynomial on a box, and how well the cells determined it."""

    coefficients: NDArray[np.float64]
    """Shape ``((o + 1)(o + 2) / 2,)``, by total degree and within it by rising degree in y."""
    order: int
    """Highest total degree ``o``."""
    box: Box
    """Pixels whose outer edges are -1 and +1 of the polynomials."""
    n_valid: int
    """Cells that entered the fit."""
    rank: int
    """Number of coefficients that the cells determine, at most ``len(coefficients)``."""
    condition: float
    """Condition number of the normal matrix (square of that of the design matrix)."""

    @property
    def determined(self) -> bool:
        """Whether the cells determine all coefficients."""
        return self.rank == len(self.coefficients)

    def render(self, box: Box | None = None, order: int | None = None) -> NDArray[np.float32]:
        """Evaluate at integer pixel coordinates.

        Parameters
        ----------
        box
            Pixels wanted; the box of the fit when None.
        order
            Leave out terms of higher total degree; none when None.

        Returns
        -------
        ndarray of float32
            Shape of ``box``.

        Raises
        ------
        ConfigError
            ``chebyshev-order-too-high`` when ``order`` exceeds that of the fit.
        GeometryError
            ``box-outside`` when ``box`` leaves the box of the fit.
        """
        top = self.order if order is None else order
        if not 0 <= top <= self.order:
            raise ConfigError(
                "chebyshev-order-too-high", f"Order {top} asked of a fit of order {self.order}"
            )
        wanted = self.box if box is None else box
        rows, columns = wanted.slices_in(self.box)
        x = _polynomials(np.arange(columns.start, columns.stop), self.box.width, top)
        y = _polynomials(np.arange(rows.start, rows.stop), self.box.height, top)
        matrix = np.zeros((top + 1, top + 1))
        for term, (i, k) in enumerate(_degrees(top)):
            matrix[k, i] = self.coefficients[term]
        out = np.empty(wanted.shape, np.float32)
        _accumulate(matrix, x, y, out)
        return out


def fit_chebyshev(
    x: ArrayLike,
    y: ArrayLike,
    values: ArrayLike,
    variance: ArrayLike | None,
    box: Box,
    control: ChebyshevControl,
) -> ChebyshevFit:
    """Fit a polynomial to the values of cells by weighted least squares.

    Parameters
    ----------
    x, y
        Centres of the cells, relative to the first pixel of ``box``, shapes ``(nx,)``, ``(ny,)``.
    values
        Shape ``(ny, nx)``. Cells that are not finite are left out.
    variance
        Variance of the values, shape ``(ny, nx)``. Cells without a positive, finite variance are
        left out, unless the weighting is NONE (then it may be None).
    box
        Domain of the polynomial.
    control
        Order and weighting.

    Returns
    -------
    ChebyshevFit
        With ``rank`` below the number of coefficients where the cells do not determine them all.

    Raises
    ------
    ConfigError
        ``chebyshev-shape`` when the shapes do not fit.
    MatchError
        ``chebyshev-no-cells`` when no cell is left.

    Notes
    -----
    Basis ``T_i(x') T_k(y')``, ``i + k <= order``, ``x' = (x - (W - 1) / 2) 2 / W``. Singular values
    below ``max(cells, terms) eps`` of the largest count as zero.
    """
    cx, cy = np.asarray(x, np.float64), np.asarray(y, np.float64)
    data = np.asarray(values, np.float64)
    if data.shape != (len(cy), len(cx)) or box.empty:
        raise ConfigError(
            "chebyshev-shape",
            f"Values {data.shape} do not fit {len(cy)} x {len(cx)} centres, or {box} is empty",
        )
    weight = _weights(data, variance, control.weighting)
    use = np.isfinite(data) & (weight > 0)
    if not use.any():
        raise MatchError(
            "chebyshev-no-cells",
            "There is no cell to fit a polynomial to: values or variances are all unusable",
            fix="Use Weighting.NONE when the variances are zero or unknown.",
        )
    tx = _polynomials(cx, box.width, control.order)
    ty = _polynomials(cy, box.height, control.order)
    terms = [np.multiply.outer(ty[k], tx[i])[use] for i, k in _degrees(control.order)]
    root = np.sqrt(weight[use] / weight[use].max())
    solution, rank, condition = _solve(np.stack(terms, axis=1) * root[:, None], data[use] * root)
    return ChebyshevFit(solution, control.order, box, int(use.sum()), rank, condition)


def _weights(
    data: NDArray[np.float64], variance: ArrayLike | None, weighting: Weighting
) -> NDArray[np.float64]:
    if weighting is Weighting.NONE:
        return np.ones(data.shape)
    plane = np.asarray(np.nan if variance is None else variance, np.float64)
    if plane.shape != data.shape:
        raise ConfigError(
            "chebyshev-shape", f"Weighting needs variances of shape {data.shape}, not {plane.shape}"
        )
    scatter = np.sqrt(plane, where=plane > 0, out=np.full(plane.shape, np.nan))
    divisor = scatter if weighting is Weighting.INVERSE_SIGMA else plane
    weight = np.zeros(data.shape)
    np.divide(1.0, divisor, out=weight, where=np.isfinite(scatter))
    return weight


def _solve(
    design: NDArray[np.float64], right: NDArray[np.float64]
) -> tuple[NDArray[np.float64], int, float]:
    """Return the least-squares solution of least norm, the rank and the squared condition."""
    u, s, vt = np.linalg.svd(design, full_matrices=False)
    keep = s > max(design.shape) * np.finfo(np.float64).eps * s[0]
    scaled = np.divide(u.T @ right, s, out=np.zeros(len(s)), where=keep)
    complete = len(s) == design.shape[1] and s[-1] > 0
    condition = float((s[0] / s[-1]) ** 2) if complete else float("inf")
    return vt.T @ scaled, int(keep.sum()), condition


def _degrees(order: int) -> list[tuple[int, int]]:
    """Degrees ``(in x, in y)`` of the terms, in the order of the coefficients."""
    return [(total - k, k) for total in range(order + 1) for k in range(total + 1)]


def _polynomials(position: ArrayLike, size: int, order: int) -> NDArray[np.float64]:
    """Chebyshev polynomials of the first kind, degrees 0 to ``order``, ``(order + 1, n)``."""
    z = (np.asarray(position, np.float64) - 0.5 * (size - 1)) * (2.0 / size)
    out = np.ones((order + 1, len(z)))
    if order > 0:
        out[1] = z
    for n in range(2, order + 1):
        out[n] = 2.0 * z * out[n - 1] - out[n - 2]
    return out


@kernel(error_model="numpy")
def _accumulate(
    matrix: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    """Write ``sum_ki matrix[k, i] y[k] x[i]``; loops fix the order of sums, unlike BLAS."""
    top, width = matrix.shape[0], x.shape[1]
    line = np.empty(width)
    for row in range(out.shape[0]):
        line[:] = 0.0
        for i in range(top):
            factor = 0.0
            for k in range(top - i):
                factor += matrix[k, i] * y[k, row]
            for p in range(width):
                line[p] += factor * x[i, p]
        for p in range(width):
            out[row, p] = np.float32(line[p])
