"""Smooth surfaces as sums of few vibrations: the basis that the solution works in.

The nodes of a visit form a rectangle. Products of the vibrations of a free beam along both axes
are nearly the eigenvectors of a plate's bending energy, and with constant, linear and quadratic
lines in the place of the slowest ones they hold all parabolas exactly. Sorted by energy, a prior
of some strength leaves next to nothing of all but the first: what a surface of 20 effective
parameters costs does not depend on the number of its nodes. All modes together are the nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.grid_covariance import GridLines
from bgmatch_dask.background.layout import NodeLayout, box_taps
from bgmatch_dask.background.penalty import MEMBRANE, PLANE, TREND, Penalty, trend_rows
from bgmatch_dask.numerics.mode_kernels import BeamEnergies, plate_energy, products, tapped

__all__ = ("Modes", "modes_of")

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_LINE = 3  # Constant, slope and parabola along one axis.


@dataclass(frozen=True, slots=True)
class _Beam:
    """Orthonormal vibrations of ``n`` nodes along one axis, and their energies."""

    shapes: Array
    """One per column: constant, line, parabola, and the rest by energy."""
    curvature: Array
    """Bending energies between them."""
    slope: Array
    """Membrane energies between them."""


@lru_cache(maxsize=256)
def _beam(n: int) -> _Beam:
    second, first = np.diff(np.eye(n), 2, axis=0), np.diff(np.eye(n), 1, axis=0)
    bend, stretch = second.T @ second, first.T @ first
    line = np.linspace(-1.0, 1.0, n)
    lowest, _ = np.linalg.qr(np.stack([line**k for k in range(_LINE)], axis=1))
    whole, _ = np.linalg.qr(np.concatenate([lowest, np.eye(n)], axis=1))
    rest = whole[:, _LINE:n]
    _, turn = np.linalg.eigh(rest.T @ bend @ rest)
    shapes = np.concatenate([lowest, rest @ turn], axis=1)
    return _Beam(shapes, shapes.T @ bend @ shapes, shapes.T @ stretch @ shapes)


@dataclass(frozen=True, slots=True, eq=False)
class Modes:
    """Vibrations of the nodes of one visit, by energy; parabolas come first, if they may move."""

    ny: int
    """Rows of nodes."""
    nx: int
    """Columns of nodes."""
    steps: tuple[float, float]
    """Distance of nodes along (y, x) in units of a superpixel."""
    along_y: Index
    """Vibration along y of each mode."""
    along_x: Index
    """Vibration along x of each mode."""
    energies: Array
    """Energy of each mode; zero for parabolas."""

    def __len__(self) -> int:
        """Return the number of modes."""
        return len(self.energies)

    def on_nodes(self, coefficients: Array) -> Array:
        """Return the node values ``[y, x]`` of a sum of the first modes."""
        table = np.zeros((self.ny, self.nx))
        n = len(coefficients)
        table[self.along_y[:n], self.along_x[:n]] = coefficients
        out: Array = _beam(self.ny).shapes @ table @ _beam(self.nx).shapes.T
        return out

    def penalty(self, n: int) -> Penalty:
        """Return the smoothness prior of the first ``n`` modes."""
        y, x = _beam(self.ny), _beam(self.nx)
        (hy, hx), ky, kx = self.steps, self.along_y[:n], self.along_x[:n]
        along_y = BeamEnergies(y.curvature / hy**4, y.slope / hy**2)
        along_x = BeamEnergies(x.curvature / hx**4, x.slope / hx**2)
        energy = plate_energy(along_y, along_x, ky, kx, MEMBRANE)
        pulls, trend = trend_rows(self.ny, self.nx, self.steps)
        cross = np.stack([(y.shapes.T @ pull @ x.shapes)[ky, kx] for pull in pulls], axis=1)
        return Penalty(hy * hx * energy, cross, trend)

    def rows(
        self, layout: NodeLayout, visit: int, low: list[Array], high: list[Array], n: int
    ) -> Array:
        """Return the operator from the first ``n`` modes to averages over boxes.

        Parameters
        ----------
        layout, visit
            Where the nodes lie.
        low, high
            Ends of the boxes along (y, x), superpixels from the first centre.
        n
            Number of modes.

        Returns
        -------
        ndarray of float64
            ``(n_boxes, n)``.
        """
        along_y, along_x = self.along_y[:n], self.along_x[:n]
        y = self._line(layout, visit, 0, (low[0], high[0]), along_y)
        x = self._line(layout, visit, 1, (low[1], high[1]), along_x)
        out: Array = products(y, x, along_y, along_x)
        return out

    def on_grid(self, layout: NodeLayout, visit: int, y: Array, x: Array, n: int) -> GridLines:
        """Return the first ``n`` modes on full superpixels in some rows ``y`` and columns ``x``."""
        along_y, along_x = self.along_y[:n], self.along_x[:n]
        return GridLines(
            self._line(layout, visit, 0, (y - 0.5, y + 0.5), along_y),
            self._line(layout, visit, 1, (x - 0.5, x + 0.5), along_x),
            along_y,
            along_x,
        )

    def _line(
        self, layout: NodeLayout, visit: int, axis: int, ends: tuple[Array, Array], wanted: Index
    ) -> Array:
        """Return the vibrations along an axis that are wanted, and those before, in some boxes."""
        shapes = _beam((self.ny, self.nx)[axis]).shapes
        first, weights = box_taps(layout, visit, axis, *ends)
        out: Array = tapped(shapes, first, weights, int(wanted.max(initial=-1)) + 1)
        return out


def modes_of(layout: NodeLayout, visit: int, *, gauge: bool) -> Modes:
    """Return the modes of a visit; those of a gauge hold no parabola."""
    window, grid = layout.windows[visit], layout.grid
    unit = np.sqrt(grid.bin_x * grid.bin_y)
    steps = layout.pitch * grid.bin_y / unit, layout.pitch * grid.bin_x / unit
    ky, kx, energies = _sorted_modes(window.ny, window.nx, steps)
    first = 1 + TREND if gauge else 0
    return Modes(window.ny, window.nx, steps, ky[first:], kx[first:], energies[first:])


@lru_cache(maxsize=256)
def _sorted_modes(ny: int, nx: int, steps: tuple[float, float]) -> tuple[Index, Index, Array]:
    (hy, hx), y, x = steps, _beam(ny), _beam(nx)
    by, sy, bx, sx = (np.diag(m) for m in (y.curvature, y.slope, x.curvature, x.slope))
    energy = by[:, np.newaxis] / hy**4 + bx / hx**4
    energy = energy + 2.0 * np.outer(sy, sx) / (hy * hx) ** 2
    energy += MEMBRANE * (sy[:, np.newaxis] / hy**2 + sx / hx**2)
    energy *= hy * hx
    ky, kx = (a.ravel() for a in np.indices((ny, nx)))
    flat = np.where(ky + kx <= PLANE, 0.0, energy.ravel())
    order = np.argsort(flat, kind="stable")
    return ky[order], kx[order], flat[order]
