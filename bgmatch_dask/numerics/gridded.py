"""Gridded backgrounds: statistics of the cells of an image, and the smooth image through them.

Source: LSST ``afw::math::BackgroundMI``. What differs unless ``upstream=True`` is given:

* the variance of a cell is the square of the standard error of its value; upstream keeps the
  standard error itself (fault F-34);
* a polynomial background is drawn where it was asked for; upstream ignores the box, and places the
  image at the origin (fault F-36);
* the points of `bgmatch_dask.numerics.interpolation` (faults F-33 and F-41).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bgmatch_dask.errors import ConfigError, InputError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.cells import CellGrid, measure_cells
from bgmatch_dask.numerics.chebyshev import ChebyshevControl, ChebyshevFit, fit_chebyshev
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.rendering import (
    Rendered,
    UndersampleStyle,
    choose_style,
    render_nodes,
)
from bgmatch_dask.numerics.statistics import Property, StatisticsControl

__all__ = (
    "BackgroundControl",
    "GriddedBackground",
    "background_from_values",
    "measure_background",
)


@dataclass(frozen=True, slots=True)
class BackgroundControl:
    """How to measure and draw a gridded background."""

    nx: int = 10
    """Cells along x."""
    ny: int = 10
    """Cells along y."""
    style: InterpStyle = InterpStyle.AKIMA_SPLINE
    """How to interpolate between cells."""
    undersample: UndersampleStyle = UndersampleStyle.THROW_EXCEPTION
    """What to do where there are too few cells for ``style``."""
    statistic: Property = Property.MEANCLIP
    """Statistic that is the value of a cell."""
    statistics: StatisticsControl = field(default_factory=StatisticsControl)
    """Clipping, masks and weights of the statistic."""
    approximation: ChebyshevControl | None = None
    """Draw this polynomial instead of interpolating."""

    def __post_init__(self) -> None:
        """Refuse grids that hold no cell."""
        if self.nx < 1 or self.ny < 1:
            raise ConfigError(
                "grid-empty",
                f"A background needs at least one cell on each axis, not {self.nx} x {self.ny}",
            )


@dataclass(frozen=True, slots=True, eq=False)
class GriddedBackground:
    """Values of the cells of a box, and how to draw them. Arrays have the shape ``(ny, nx)``."""

    box: Box
    """Pixels that the cells divide."""
    control: BackgroundControl
    """How it was measured, and is drawn when nothing else is asked for."""
    values: NDArray[np.float32]
    """Value of each cell, NaN where there was none."""
    variance: NDArray[np.float32]
    """Variance of the values (their standard error when measured with ``upstream=True``)."""
    mask: NDArray[np.int32]
    """Bits of the cells; carried along, never looked at."""

    @property
    def cells(self) -> CellGrid:
        """Edges and centres of the cells, relative to the first pixel of the box."""
        return CellGrid.divide(self.box, self.control.nx, self.control.ny)

    @property
    def x_centres(self) -> NDArray[np.float64]:
        """Centres of the cell columns, in the coordinates of the box, shape ``(nx,)``."""
        return self.box.x0 + self.cells.x_centres

    @property
    def y_centres(self) -> NDArray[np.float64]:
        """Centres of the cell rows, in the coordinates of the box, shape ``(ny,)``."""
        return self.box.y0 + self.cells.y_centres

    def __iadd__(self, constant: float) -> Self:
        """Add a constant to all values, in place (in float32)."""
        self.values[...] += np.float32(constant)
        return self

    def __isub__(self, constant: float) -> Self:
        """Subtract a constant from all values, in place (in float32)."""
        self.values[...] -= np.float32(constant)
        return self

    def render(
        self,
        box: Box | None = None,
        style: InterpStyle | None = None,
        undersample: UndersampleStyle | None = None,
        *,
        upstream: bool = False,
        out: NDArray[np.float32] | None = None,
    ) -> Rendered:
        """Draw the background.

        Parameters
        ----------
        box
            Pixels wanted, inside ``self.box``; all of it when None.
        style, undersample
            Instead of those of the control. They do not matter when that asks for a polynomial.
        upstream
            See the module docstring.
        out
            Where to write; see `bgmatch_dask.numerics.rendering.render_nodes`. Polynomials always
            make a new array.

        Returns
        -------
        Rendered
            The image, its box, and the styles that were used.

        Raises
        ------
        GeometryError
            ``box-outside``.
        ConfigError
            ``grid-undersampled``, ``render-out``.
        MatchError
            ``interp-too-few-points``, ``chebyshev-no-cells``.
        """
        wanted = self.box if box is None else box
        wanted.slices_in(self.box)
        polynomial = self.control.approximation
        drawn = self.control.style if style is None else style
        rule = self.control.undersample if undersample is None else undersample
        if polynomial is not None:
            return self._render_polynomial(polynomial, wanted, drawn, rule, upstream=upstream)
        local = Box(wanted.x0 - self.box.x0, wanted.y0 - self.box.y0, wanted.width, wanted.height)
        cells = self.cells
        result = render_nodes(
            cells.x_centres, cells.y_centres, self.values, local, drawn, rule,
            upstream=upstream, out=out,
        )  # fmt: skip
        return Rendered(result.image, wanted, result.style, result.undersample)

    def _render_polynomial(
        self,
        polynomial: ChebyshevControl,
        box: Box,
        style: InterpStyle,
        undersample: UndersampleStyle,
        *,
        upstream: bool,
    ) -> Rendered:
        if upstream:
            # LSST looks at the interpolation style first, though nothing is interpolated.
            style = choose_style(self.values.shape, style, undersample)
            box = self.box
        image = self.approximate(polynomial).render(box)
        place = Box(0, 0, box.width, box.height) if upstream else box
        return Rendered(image, place, style, undersample)

    def approximate(self, polynomial: ChebyshevControl) -> ChebyshevFit:
        """Fit a polynomial to the cells.

        Parameters
        ----------
        polynomial
            Order and weighting. Of a background measured with ``upstream=True``, whose variance
            plane holds standard errors, ``INVERSE_VARIANCE`` weighs by 1/σ, as LSST does.

        Raises
        ------
        MatchError
            ``chebyshev-no-cells``.
        """
        cells = self.cells
        return fit_chebyshev(
            cells.x_centres, cells.y_centres, self.values, self.variance, self.box, polynomial
        )


def measure_background(
    image: NDArray[np.number],
    control: BackgroundControl,
    *,
    mask: NDArray[np.integer] | None = None,
    variance: NDArray[np.floating] | None = None,
    x0: int = 0,
    y0: int = 0,
    upstream: bool = False,
) -> GriddedBackground:
    """Measure the cells of an image.

    Parameters
    ----------
    image
        float32, shape ``(height, width)``.
    control
        Number of cells, statistic, and how to draw the result.
    mask
        Bit field of the same shape; bits of ``control.statistics`` leave a pixel out.
    variance
        Variance of the pixels, same shape; only for weighted statistics and their errors.
    x0, y0
        Coordinates of the first pixel.
    upstream
        Keep the standard errors in the variance plane (fault F-34).

    Returns
    -------
    GriddedBackground
        NaN in cells without good pixels.

    Raises
    ------
    ConfigError
        ``cells-empty`` when there are more cells than pixels along an axis.
    InputError
        ``image-shape`` for what is not a two-dimensional image; codes of
        `bgmatch_dask.numerics.statistics.measure_statistics`.
    """
    if image.ndim != 2:
        raise InputError("image-shape", f"An image has two axes, not shape {image.shape}")
    box = Box(x0, y0, image.shape[1], image.shape[0])
    cells = CellGrid.divide(box, control.nx, control.ny)
    values, errors = measure_cells(
        image, mask, variance, cells, control.statistic, control.statistics, upstream=upstream
    )
    # What float32 cannot hold becomes infinite: a cell without weight, not a reason to warn.
    with np.errstate(over="ignore"):
        value_plane = values.astype(np.float32)
        variance_plane = (errors if upstream else errors**2).astype(np.float32)
    mask_plane = np.zeros(values.shape, np.int32)
    return GriddedBackground(box, control, value_plane, variance_plane, mask_plane)


def background_from_values(
    box: Box,
    values: ArrayLike,
    variance: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    control: BackgroundControl | None = None,
) -> GriddedBackground:
    """Make a background of known cell values.

    Parameters
    ----------
    box
        Pixels that the cells divide.
    values
        Shape ``(ny, nx)``; NaN where unknown.
    variance
        Variance of the values, same shape; zero when None.
    mask
        Bits of the cells, same shape; zero when None.
    control
        How to draw; ``nx`` and ``ny`` must be those of ``values``. Default styles when None.

    Returns
    -------
    GriddedBackground
        Of copies of the arrays.

    Raises
    ------
    ConfigError
        ``grid-shape`` when shapes do not fit; ``cells-empty`` when the box has fewer pixels than
        cells.
    """
    grid = np.array(values, np.float32)
    planes = (
        np.zeros(grid.shape, np.float32) if variance is None else np.array(variance, np.float32),
        np.zeros(grid.shape, np.int32) if mask is None else np.array(mask, np.int32),
    )
    if grid.ndim != 2 or any(plane.shape != grid.shape for plane in planes):
        raise ConfigError("grid-shape", f"Cell values {grid.shape} and their planes do not fit")
    ny, nx = grid.shape
    used = BackgroundControl(nx, ny) if control is None else control
    if (used.ny, used.nx) != grid.shape:
        raise ConfigError(
            "grid-shape", f"The control has {used.nx} x {used.ny} cells, the values {nx} x {ny}"
        )
    CellGrid.divide(box, nx, ny)
    return GriddedBackground(box, used, grid, *planes)
