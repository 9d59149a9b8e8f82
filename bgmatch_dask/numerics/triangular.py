"""Dense triangular solutions that leave other threads free to work.

SciPy's wrappers of these LAPACK and BLAS routines hold the interpreter's lock while they run, so
that threads would wait for each other. The same routines, taken from SciPy's table of C
functions (`scipy.linalg.cython_blas`), are called without it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cython_blas, cython_lapack

from bgmatch_dask.numerics.compiling import kernel

__all__ = ("factor_lower", "inverse_of_factor", "solve_lower", "solve_rows", "subtract_lower")

Array = NDArray[np.float64]

_BLOCK = 32


def factor_lower(matrix: Array) -> Array:
    """Return the lower Cholesky factor of a symmetric matrix, in its place.

    Parameters
    ----------
    matrix
        float64 ``(n, n)``, row by row; of which the lower triangle is read and replaced.

    Returns
    -------
    ndarray of float64
        ``matrix`` itself; what is above the diagonal stays as it was.

    Raises
    ------
    numpy.linalg.LinAlgError
        When the matrix is not positive definite.
    """
    n, info = _size(matrix), ctypes.c_int(0)
    if n:
        _POTRF(b"U", _int(n), _data(matrix), _int(n), ctypes.byref(info))
    if info.value:
        message = f"The leading minor of order {info.value} is not positive definite"
        raise np.linalg.LinAlgError(message)
    return matrix


def solve_lower(lower: Array, right: Array, *, transposed: bool = False) -> Array:
    """Return ``L⁻¹ R``, or ``L⁻ᵀ R``.

    Parameters
    ----------
    lower
        Lower triangle, float64 ``(n, n)``, row by row, which may be a part of a larger one; what is
        above the diagonal is not read. Its diagonal must not hold zeros.
    right
        Right-hand sides, float64 ``(n,)`` or ``(n, k)``.
    transposed
        Whether to solve with ``Lᵀ``.

    Returns
    -------
    ndarray of float64
        A new array in the shape of ``right``.
    """
    n = _size(lower)
    out: Array = np.array(right, np.float64, order="C")
    if out.shape[:1] != (n,):
        message = f"{out.shape} right-hand sides do not fit {n} equations"
        raise ValueError(message)
    k = out.size // n if n else 0
    if k:
        # Row by row, R is its own transpose to BLAS, and L an upper triangle: Rᵀ ← Rᵀ L⁻ᵀ.
        _TRSM(
            *(b"R", b"U", b"T" if transposed else b"N", b"N"),
            *(_int(k), _int(n), ctypes.byref(ctypes.c_double(1.0))),
            *(_data(lower), _row_length(lower), _data(out), _int(k)),
        )
    return out


def solve_rows(lower: Array, rows: Array, *, transposed: bool = False) -> Array:
    """Return ``L⁻¹ r`` of every row ``r``, or ``L⁻ᵀ r``; as `solve_lower`, without transposing.

    Parameters
    ----------
    lower, transposed
        As in `solve_lower`.
    rows
        Right-hand sides, float64 ``(k, n)``.

    Returns
    -------
    ndarray of float64
        A new array ``(k, n)``.
    """
    n = _size(lower)
    out: Array = np.array(rows, np.float64, order="C")
    if out.ndim != 2 or out.shape[1] != n:
        message = f"{out.shape} right-hand sides do not fit {n} equations"
        raise ValueError(message)
    if out.size:
        # Columns to BLAS, to which L is an upper triangle: R ← L⁻¹ R.
        _TRSM(
            *(b"L", b"U", b"N" if transposed else b"T", b"N"),
            *(_int(n), _int(len(out)), ctypes.byref(ctypes.c_double(1.0))),
            *(_data(lower), _row_length(lower), _data(out), _int(n)),
        )
    return out


def inverse_of_factor(lower: Array) -> Array:
    """Return ``(L Lᵀ)⁻¹``, float64 ``(n, n)``, whole; ``lower`` is as in `solve_lower`."""
    n = _size(lower)
    out = lower.copy()
    info = ctypes.c_int(0)
    if n:
        _POTRI(b"U", _int(n), _data(out), _int(n), ctypes.byref(info))
    if info.value:
        message = f"LAPACK's dpotri returned {info.value}"
        raise np.linalg.LinAlgError(message)
    _mirror(out)
    return out


@kernel()
def _mirror(matrix: Array) -> None:
    """Copy what is below the diagonal above it, block by block to stay in the cache."""
    n = len(matrix)
    for top in range(0, n, _BLOCK):
        for left in range(0, top + 1, _BLOCK):
            for i in range(top, min(top + _BLOCK, n)):
                for j in range(left, min(left + _BLOCK, i)):
                    matrix[j, i] = matrix[i, j]


@kernel()
def subtract_lower(matrix: Array, at: NDArray[np.int64], part: Array) -> None:
    """Subtract a symmetric matrix from some rows and columns of a lower triangle, in place.

    Parameters
    ----------
    matrix
        float64 ``(n, n)``; what is above its diagonal stays as it is.
    at
        Rows and columns, ascending, ``(k,)``.
    part
        Symmetric, ``(k, k)``.
    """
    for i in range(at.size):
        row, own = matrix[at[i]], part[i]
        for j in range(i + 1):
            row[at[j]] -= own[j]


def _size(lower: Array) -> int:
    square = lower.ndim == 2 and lower.shape[0] == lower.shape[1]
    if not (square and lower.dtype == np.float64 and _by_rows(lower)):
        message = "A triangle must be square, float64 and stored row by row"
        raise ValueError(message)
    return len(lower)


def _by_rows(lower: Array) -> bool:
    item, (step, next_one) = lower.itemsize, lower.strides
    part = next_one == item and step % item == 0 and step >= item * len(lower)
    # Strides of what has no second row or column mean nothing.
    return lower.flags.c_contiguous or (len(lower) > 1 and part)


def _row_length(lower: Array) -> Any:  # noqa: ANN401
    """Return the numbers from one row to the next."""
    n = len(lower)
    return _int(lower.strides[0] // lower.itemsize if n > 1 else n)


def _function(table: Mapping[str, object], name: str, n_arguments: int) -> Callable[..., None]:
    """Return a C function of SciPy's; a call of it gives the interpreter's lock away."""
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    capsule = table[name]
    address = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)(address)


def _int(value: int) -> Any:  # noqa: ANN401
    return ctypes.byref(ctypes.c_int(value))


def _data(values: Array) -> Any:  # noqa: ANN401
    return values.ctypes.data_as(ctypes.c_void_p)


_TRSM = _function(cython_blas.__pyx_capi__, "dtrsm", 11)
_POTRF = _function(cython_lapack.__pyx_capi__, "dpotrf", 5)
_POTRI = _function(cython_lapack.__pyx_capi__, "dpotri", 5)
