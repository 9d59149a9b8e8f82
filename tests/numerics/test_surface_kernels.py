import numpy as np
import pytest

from bgmatch_dask.numerics.keys import (
    TAPS,
    keys_at,
    keys_averages,
    keys_render,
    keys_weights,
    linear_at,
    linear_render,
)
from bgmatch_dask.numerics.tap_kernels import TapRows, apply


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


@pytest.mark.parametrize("kind", ["keys", "linear"])
def test_a_pixel_depends_on_its_position_alone(kind):
    rng = np.random.default_rng(4)
    nodes = rng.normal(size=(7, 9))
    y, x = np.linspace(-1.0, 8.0, 90), np.linspace(-1.0, 10.0, 110)
    render, at = {"keys": (keys_render, keys_at), "linear": (linear_render, linear_at)}[kind]
    whole = render(nodes, x, y)
    part = render(nodes, x[17:60], y[31:])
    assert part.tobytes() == np.ascontiguousarray(whole[31:, 17:60]).tobytes()
    rows, columns = rng.integers(0, 90, 300), rng.integers(0, 110, 300)
    assert at(nodes, x[columns], y[rows]).tobytes() == whole[rows, columns].tobytes()
    if kind == "linear":
        twin = [np.interp(x, np.arange(9), line) for line in nodes]
        twin = np.stack([np.interp(y, np.arange(7), line) for line in np.transpose(twin)], axis=1)
        np.testing.assert_allclose(whole, twin, rtol=1e-6, atol=1e-6)


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
    return rows, matrix, rng


def test_tap_kernel_against_dense():
    rows, matrix, rng = random_rows()
    surface = rng.normal(size=matrix.shape[1])
    np.testing.assert_allclose(apply(rows, surface), matrix @ surface, rtol=1e-12, atol=1e-12)
