"""A surface on columns and rows, as a polynomial between nodes in each row.

Columns between the same nodes share its coefficients, so that a pixel costs one multiplication
and one addition for each degree, and no look-up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.numerics.compiling import inner, kernel

__all__ = ("Places", "RowPolynomials", "cubic_at", "linear_at", "render_row", "through_nodes")

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Places = tuple[Indices, Array]
"""Node of the first of four taps, and place between the second and the third, 0 to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class RowPolynomials:
    """A surface on the product of columns and rows, each pixel from its own position alone."""

    terms: Array
    """Coefficients of rising powers, shape ``(rows, runs, 4)``, for lines ``(rows, runs, 2)``."""
    starts: Indices
    """First column of each run of columns between the same nodes, and the end of the last."""
    places: Array
    """Place of each column between its nodes, 0 to 1."""

    def render(self, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fill and return an array of the shape of the surface, C order, rounded once."""
        _render(self.terms, self.starts, self.places, out)
        return out


def through_nodes(nodes: Array, x: Places, y: Places, *, cubic: bool) -> RowPolynomials:
    """Return the surface through nodes.

    Parameters
    ----------
    nodes
        Node values ``[y, x]``.
    x, y
        Where the columns and rows lie.
    cubic
        Keys' cubic of four nodes, otherwise the line from the second tap to the third.
    """
    base, places = x
    starts = np.concatenate([np.flatnonzero(np.diff(base, prepend=-2)), [len(base)]])
    starts = starts.astype(np.int64)
    terms = np.empty((len(y[0]), len(starts) - 1, 4 if cubic else 2))
    _terms(np.ascontiguousarray(nodes), base[starts[:-1]], *y, terms)
    return RowPolynomials(terms, starts, np.ascontiguousarray(places))


def cubic_at(nodes: Array, x: Places, y: Places) -> NDArray[np.float32]:
    """Return Keys' cubic at points, float32 ``(n,)``: the bits of its rows."""
    return _points(nodes, x, y, 4)


def linear_at(nodes: Array, x: Places, y: Places) -> NDArray[np.float32]:
    """Return the line between nodes at points, float32 ``(n,)``: the bits of its rows."""
    return _points(nodes, x, y, 2)


def _points(nodes: Array, x: Places, y: Places, n_terms: int) -> NDArray[np.float32]:
    out = np.empty(len(x[0]), np.float32)
    _at(np.ascontiguousarray(nodes), *x, *y, n_terms, out)
    return out


@inner()
def _put_terms(nodes: Array, b: int, g: float, c: int, terms: Array) -> None:
    """Put the coefficients in x of the polynomial that the nodes around a row give in it."""
    if terms.size == 2:
        v0, v1, v2, v3 = 0.0, 1.0 - g, g, 0.0
    else:
        v0 = ((-0.5 * g + 1.0) * g - 0.5) * g
        v1 = (1.5 * g - 2.5) * g * g + 1.0
        v2 = ((-1.5 * g + 2.0) * g + 0.5) * g
        v3 = (0.5 * g - 0.5) * g * g
    w0, w1, w2, w3 = nodes[b], nodes[b + 1], nodes[b + 2], nodes[b + 3]
    n0 = (v0 * w0[c] + v1 * w1[c]) + (v2 * w2[c] + v3 * w3[c])
    n1 = (v0 * w0[c + 1] + v1 * w1[c + 1]) + (v2 * w2[c + 1] + v3 * w3[c + 1])
    n2 = (v0 * w0[c + 2] + v1 * w1[c + 2]) + (v2 * w2[c + 2] + v3 * w3[c + 2])
    n3 = (v0 * w0[c + 3] + v1 * w1[c + 3]) + (v2 * w2[c + 3] + v3 * w3[c + 3])
    terms[0] = n1
    if terms.size == 2:
        terms[1] = n2 - n1
    else:
        terms[1] = 0.5 * (n2 - n0)
        terms[2] = (n0 - 2.5 * n1) + (2.0 * n2 - 0.5 * n3)
        terms[3] = 0.5 * (n3 - n0) + 1.5 * (n1 - n2)


@kernel()
def _terms(nodes: Array, x_base: Indices, y_base: Indices, y_places: Array, terms: Array) -> None:
    for j in range(terms.shape[0]):
        for r in range(terms.shape[1]):
            _put_terms(nodes, y_base[j], y_places[j], x_base[r], terms[j, r])


@kernel()
def _at(
    nodes: Array,
    x_base: Indices,
    x_places: Array,
    y_base: Indices,
    y_places: Array,
    n_terms: int,
    out: NDArray[np.float32],
) -> None:
    terms = np.zeros(n_terms)
    for i in range(out.size):
        f = x_places[i]
        _put_terms(nodes, y_base[i], y_places[i], x_base[i], terms)
        if n_terms == 2:
            out[i] = np.float32(terms[1] * f + terms[0])
        else:
            out[i] = np.float32(((terms[3] * f + terms[2]) * f + terms[1]) * f + terms[0])


@kernel()
def _render(terms: Array, starts: Indices, places: Array, out: NDArray[np.float32]) -> None:
    for j in range(out.shape[0]):
        render_row(terms[j], starts, places, out[j])


@inner()
def render_row(terms: Array, starts: Indices, places: Array, out: NDArray[np.float32]) -> None:
    """Fill one row; ``terms`` are those of the row."""
    for r in range(terms.shape[0]):
        # Parts of arrays start at zero: the compiler then knows that no index counts from the end.
        part, f = out[starts[r] : starts[r + 1]], places[starts[r] : starts[r + 1]]
        if terms.shape[1] == 2:
            _line(terms[r, 0], terms[r, 1], f, part)
        else:
            _cubic(terms[r, 0], terms[r, 1], terms[r, 2], terms[r, 3], f, part)


@inner()
def _cubic(t0: float, t1: float, t2: float, t3: float, f: Array, out: NDArray[np.float32]) -> None:
    for i in range(out.size):
        out[i] = np.float32(((t3 * f[i] + t2) * f[i] + t1) * f[i] + t0)


@inner()
def _line(t0: float, t1: float, f: Array, out: NDArray[np.float32]) -> None:
    for i in range(out.size):
        out[i] = np.float32(t1 * f[i] + t0)
