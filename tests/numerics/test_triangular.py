"""Triangular solutions against NumPy's own, and that threads work beside each other."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.numerics.triangular import (
    factor_lower,
    inverse_of_factor,
    solve_lower,
    solve_rows,
    subtract_lower,
)


def factor(n: int, seed: int = 0) -> np.ndarray:
    half = np.random.default_rng(seed).normal(size=(n, n))
    return np.linalg.cholesky(half @ half.T + n * np.eye(n))


@given(st.integers(0, 12), st.integers(0, 7), st.booleans(), st.integers(0, 99))
def test_solutions_solve_the_equations(n, k, transposed, seed):
    lower = factor(n, seed)
    right = np.random.default_rng(seed).normal(size=(n, k))
    out = solve_lower(lower, right, transposed=transposed)
    matrix = lower.T if transposed else lower
    assert out.shape == right.shape
    np.testing.assert_allclose(matrix @ out, right, atol=1e-12)
    if k:
        np.testing.assert_allclose(
            solve_lower(lower, right[:, 0], transposed=transposed), out[:, 0], atol=1e-13
        )
    rows = solve_rows(lower, right.T, transposed=transposed)
    np.testing.assert_allclose(rows, out.T, atol=1e-13)


@pytest.mark.parametrize("n", [0, 1, 2, 70])
def test_a_factor_takes_the_place_of_its_matrix(n):
    lower = factor(n)
    matrix = lower @ lower.T
    above = np.triu(matrix, 1)
    found = factor_lower(matrix)
    assert found is matrix
    np.testing.assert_allclose(np.tril(found), lower, atol=1e-10)
    np.testing.assert_array_equal(np.triu(found, 1), above)


def test_what_is_not_positive_definite_has_no_factor():
    with pytest.raises(np.linalg.LinAlgError, match="order 2"):
        factor_lower(np.diag([1.0, -1.0, 1.0]))
    with pytest.raises(ValueError, match="do not fit"):
        solve_rows(np.eye(3), np.ones((3, 2)))


@pytest.mark.parametrize("n", [0, 1, 2, 30, 70])
def test_the_inverse_is_whole_and_symmetric(n):
    lower = factor(n)
    inverse = inverse_of_factor(lower)
    np.testing.assert_array_equal(inverse, inverse.T)
    np.testing.assert_allclose(inverse @ lower @ lower.T, np.eye(n), atol=1e-12)


@settings(deadline=None)
@given(st.integers(0, 9), st.data())
def test_a_part_is_subtracted_from_the_lower_triangle_alone(n, data):
    at = np.array(sorted(data.draw(st.sets(st.integers(0, n)))), np.int64)
    matrix = np.random.default_rng(n).normal(size=(n + 1, n + 1))
    half = np.random.default_rng(1).normal(size=(len(at), len(at)))
    whole, out = matrix.copy(), matrix.copy()
    whole[np.ix_(at, at)] -= half + half.T
    subtract_lower(out, at, half + half.T)
    np.testing.assert_array_equal(out, np.tril(whole) + np.triu(matrix, 1))


def test_nothing_that_is_given_changes():
    lower, right = factor(5), np.ones((5, 3))
    before = lower.copy()
    solve_lower(lower, right)
    inverse_of_factor(lower)
    np.testing.assert_array_equal(lower, before)
    np.testing.assert_array_equal(right, 1.0)


def test_what_does_not_fit_is_refused():
    for wrong in (np.asfortranarray(factor(3)), factor(3).astype(np.float32), np.ones((2, 3))):
        with pytest.raises(ValueError, match="row by row"):
            solve_lower(wrong, np.ones(3))
    with pytest.raises(ValueError, match="do not fit"):
        solve_lower(factor(3), np.ones(4))


def test_another_thread_works_meanwhile():
    lower, right = factor(1500), np.ones((1500, 1500))
    done = threading.Event()
    seen = []

    def solve() -> None:
        for _ in range(3):
            solve_lower(lower, right)
            inverse_of_factor(lower)
        done.set()

    thread = threading.Thread(target=solve)
    thread.start()
    while not done.is_set():
        seen.append(time.perf_counter())
        time.sleep(0.001)
    thread.join()
    # With the lock held there would be one look between two calls.
    assert len(seen) > 20
