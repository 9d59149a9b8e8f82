from itertools import pairwise

import numpy as np
import pytest

from bgmatch_dask.numerics.block_tridiagonal import BlockMatrix, factorise
from bgmatch_dask.numerics.keys import TAPS, keys_averages, keys_render, keys_weights
from bgmatch_dask.numerics.tap_kernels import (
    StripOrder,
    TapRows,
    adjoint,
    apply,
    normal_blocks,
    normal_diagonal,
    quadratic_forms,
)


def dense(matrix):
    offsets = matrix.offsets
    out = np.zeros((offsets[-1], offsets[-1]))
    for i, block in enumerate(matrix.diagonal):
        out[offsets[i] : offsets[i + 1], offsets[i] : offsets[i + 1]] = block
    for i, block in enumerate(matrix.lower):
        out[offsets[i + 1] : offsets[i + 2], offsets[i] : offsets[i + 1]] = block
        out[offsets[i] : offsets[i + 1], offsets[i + 1] : offsets[i + 2]] = block.T
    return out


def random_blocks(sizes=(4, 7, 3, 5)):
    rng = np.random.default_rng(0)
    diagonal = []
    for n in sizes:
        a = rng.normal(size=(n, n))
        diagonal.append(a @ a.T + 20 * np.eye(n))
    lower = [rng.normal(size=(b, a)) for a, b in pairwise(sizes)]
    return BlockMatrix(tuple(diagonal), tuple(lower))


def test_block_cholesky_against_dense():
    matrix = random_blocks()
    full = dense(matrix)
    factor = factorise(matrix)
    right = np.random.default_rng(1).normal(size=(len(full), 3))
    np.testing.assert_allclose(factor.solve(right), np.linalg.solve(full, right), rtol=1e-10)
    np.testing.assert_allclose(
        factor.solve(right[:, 0]), np.linalg.solve(full, right[:, 0]), rtol=1e-10
    )
    np.testing.assert_allclose(factor.log_determinant, np.linalg.slogdet(full)[1], rtol=1e-12)
    inverse = np.linalg.inv(full)
    selected = dense(factor.inverse_blocks())
    pattern = dense(matrix) != 0
    np.testing.assert_allclose(selected[pattern], inverse[pattern], atol=1e-12)


def test_not_positive_definite_is_an_error():
    with pytest.raises(np.linalg.LinAlgError):
        factorise(BlockMatrix((-np.eye(2),), ()))


def test_averages_are_integrals_of_the_kernel():
    low = np.array([3.2, 4.0, 2.9, 5.0, 2.3])
    high = np.array([4.1, 4.9, 3.9, 5.0 + 1e-5, 3.9])
    base, weights = keys_averages(low, high, np.zeros(5, int), np.full(5, 9))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    for k in range(5):
        t = low[k] + (np.arange(20000) + 0.5) / 20000 * (high[k] - low[k])
        at, w = keys_weights(t)
        twin = np.zeros(12)
        np.add.at(twin, at[:, np.newaxis] + np.arange(4), w / len(t))
        np.testing.assert_allclose(twin[base[k] : base[k] + TAPS], weights[k], atol=1e-8)


def test_kernel_reproduces_parabolas_and_continues_them():
    nodes = np.arange(9.0)
    t = np.linspace(-0.5, 8.5, 50)
    base, weights = keys_weights(t, 9)
    values = (weights * (2 + nodes - 3 * nodes**2)[base[:, np.newaxis] + np.arange(4)]).sum(axis=1)
    np.testing.assert_allclose(values, 2 + t - 3 * t**2, atol=1e-12)


def test_render_against_plain_twin():
    rng = np.random.default_rng(2)
    nodes = rng.normal(size=(7, 9))
    y, x = np.sort(rng.uniform(1, 5, 40)), np.sort(rng.uniform(1, 7, 60))
    matrices = []
    for t, n in ((y, 7), (x, 9)):
        base, weights = keys_weights(t, n)
        matrix = np.zeros((len(t), n))
        np.put_along_axis(matrix, base[:, np.newaxis] + np.arange(4), weights, axis=1)
        matrices.append(matrix)
    twin = matrices[0] @ nodes @ matrices[1].T
    np.testing.assert_allclose(keys_render(nodes, x, y), twin, rtol=1e-6, atol=1e-6)


def random_rows(n=30, shape=(9, 8)):
    """Rows on two surfaces of one shape; the second may be missing."""
    rng = np.random.default_rng(3)
    size = shape[0] * shape[1]
    at = rng.integers(0, shape[0] - 4, n) * shape[1] + rng.integers(0, shape[1] - 4, n)
    hub = np.where(rng.random(n) < 0.3, -1, at + size)
    stride = np.full(n, shape[1])
    rows = TapRows(at, stride, hub, stride, rng.normal(size=(n, 5)), rng.normal(size=(n, 5)))
    matrix = np.zeros((n, 2 * size))
    for k in range(n):
        for j in range(5):
            for i in range(5):
                value = rows.y_weights[k, j] * rows.x_weights[k, i]
                matrix[k, at[k] + j * shape[1] + i] += value
                if hub[k] >= 0:
                    matrix[k, hub[k] + j * shape[1] + i] -= value
    line = np.tile(np.repeat(np.arange(shape[0]), shape[1]), 2) // 4
    order = np.argsort(line, kind="stable")
    sizes = np.bincount(line)
    local = np.empty(2 * size, np.int64)
    local[order] = np.arange(2 * size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rows, matrix, StripOrder(line, local, sizes), rng


def test_tap_kernels_against_dense():
    rows, matrix, order, rng = random_rows()
    n, size = matrix.shape
    surface, values, weights = rng.normal(size=size), rng.normal(size=n), rng.random(n)
    np.testing.assert_allclose(apply(rows, surface), matrix @ surface, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        adjoint(rows, values, size), matrix.T @ values, rtol=1e-12, atol=1e-12
    )
    normal = matrix.T @ np.diag(weights) @ matrix
    np.testing.assert_allclose(normal_diagonal(rows, weights, size), np.diag(normal), atol=1e-12)
    blocks = dense(order.matrix(normal_blocks(rows, weights, order)))
    place = order.position
    np.testing.assert_allclose(blocks[np.ix_(place, place)], normal, atol=1e-12)
    symmetric = rng.normal(size=(size, size))
    symmetric += symmetric.T
    row, column = (a.ravel() for a in np.indices((size, size)))
    where, kept = order.addresses(row, column)
    memory = np.zeros(int(order.starts[-1]))
    memory[where[kept]] = symmetric[row[kept], column[kept]]
    low_rank = rng.normal(size=(size, 3))
    wanted = np.einsum("ki,ij,kj->k", matrix, symmetric + low_rank @ low_rank.T, matrix)
    np.testing.assert_allclose(quadratic_forms(rows, order, memory, low_rank), wanted, rtol=1e-9)
