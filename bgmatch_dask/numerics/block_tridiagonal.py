"""Cholesky factor of a symmetric positive definite block-tridiagonal matrix.

Unknowns on a plane that interact only nearby, taken in strips, give such a matrix. Dense
blocks keep the arithmetic in BLAS, and the blocks of the inverse inside the same pattern
(which is all that variances and traces need) cost about twice the factor itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

__all__ = ("BlockCholesky", "BlockMatrix", "factorise")

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BlockMatrix:
    """A symmetric block-tridiagonal matrix."""

    diagonal: tuple[Array, ...]
    """Square diagonal blocks, of any sizes."""
    lower: tuple[Array, ...]
    """Block ``(i + 1, i)`` for every ``i`` but the last."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """First unknown of each block, and the number of unknowns."""
        return np.concatenate([[0], np.cumsum([len(block) for block in self.diagonal])])


@dataclass(frozen=True, slots=True)
class BlockCholesky:
    """Lower Cholesky factor, in the blocks of the matrix."""

    factor: BlockMatrix
    """Blocks of the lower factor."""

    @property
    def log_determinant(self) -> float:
        """Natural logarithm of the determinant of the matrix."""
        return 2.0 * float(sum(np.log(np.diag(d)).sum() for d in self.factor.diagonal))

    def solve(self, right: Array) -> Array:
        """Solve for one right-hand side ``(n,)`` or several ``(n, k)``."""
        offsets = self.factor.offsets
        parts = [right[a:b] for a, b in pairwise(offsets)]
        diagonal, lower = self.factor.diagonal, self.factor.lower
        out: list[Array] = []
        for i, part in enumerate(parts):
            rest = part - lower[i - 1] @ out[-1] if i else part
            out.append(_triangular(diagonal[i], rest))
        for i in reversed(range(len(out))):
            rest = out[i] - lower[i].T @ out[i + 1] if i + 1 < len(out) else out[i]
            out[i] = _triangular(diagonal[i], rest, transposed=True)
        return np.concatenate(out)

    def inverse_blocks(self) -> BlockMatrix:
        """Return the blocks of the inverse matrix inside the block-tridiagonal pattern.

        Notes
        -----
        Takahashi's recursion in blocks: with ``U = L_{i+1,i} L_ii^{-1}``,
        ``S_{i+1,i} = −S_{i+1,i+1} U`` and ``S_ii = (L_ii L_iiᵀ)^{-1} − Uᵀ S_{i+1,i}``.
        """
        diagonal, lower = self.factor.diagonal, self.factor.lower
        blocks: list[Array] = []
        beside: list[Array] = []
        for i in reversed(range(len(diagonal))):
            inverse = _triangular(diagonal[i], np.eye(len(diagonal[i])))
            own = inverse.T @ inverse
            if blocks:
                u = lower[i] @ inverse
                off = -blocks[-1] @ u
                own -= u.T @ off
                beside.append(off)
            blocks.append(own)
        return BlockMatrix(tuple(reversed(blocks)), tuple(reversed(beside)))


def factorise(matrix: BlockMatrix) -> BlockCholesky:
    """Return the Cholesky factor; only lower triangles of diagonal blocks are read.

    Raises
    ------
    numpy.linalg.LinAlgError
        When the matrix is not positive definite.
    """
    diagonal: list[Array] = []
    lower: list[Array] = []
    for i, block in enumerate(matrix.diagonal):
        rest = block
        if i:
            rest = block - lower[-1] @ lower[-1].T
        diagonal.append(cholesky(rest, lower=True, check_finite=False))
        if i < len(matrix.lower):
            lower.append(_triangular(diagonal[-1], matrix.lower[i].T).T)
    return BlockCholesky(BlockMatrix(tuple(diagonal), tuple(lower)))


def _triangular(lower: Array, right: Array, *, transposed: bool = False) -> Array:
    out: Array = solve_triangular(
        lower, right, lower=True, trans=1 if transposed else 0, check_finite=False
    )
    return out
