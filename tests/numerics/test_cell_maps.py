from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, binary_propagation

from bgmatch_dask.numerics.cell_maps import (
    blank_bad_pixels,
    cells_of,
    difference_cells,
    grow_cells,
    sum_blocks,
    take_good_pixels,
)


def sums_of_cells(a, b, wanted):
    """Number, sum and sum of squares of each cell, as the definition says."""
    sums = np.zeros((3, *wanted.shape))
    for row, column in zip(*np.nonzero(wanted), strict=True):
        cell = (slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
        good = np.isfinite(a[cell]) & np.isfinite(b[cell])
        delta = np.where(good, a[cell].astype(np.float64) - b[cell], 0.0)
        for k, values in enumerate((good.astype(np.float64), delta, delta * delta)):
            # Rows first, then columns, each from its beginning: the order fixes the last bits.
            for column_sum in np.cumsum(values, axis=0)[-1]:
                sums[k, row, column] += column_sum
    return sums


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    st.integers(1, 35), st.integers(1, 60), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 2**31)
)
def test_cells_sum_the_good_pixels(height, width, bad, seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(10.0, 3.0, (height, width)).astype(np.float32) for _ in range(2))
    for image, value in ((a, np.nan), (b, np.inf), (b, np.nan), (a, -np.inf)):
        image[rng.random(image.shape) < 0.4 * bad] = value
    b[rng.random(b.shape) < bad - 0.4] = np.nan
    wanted = rng.random((-(-height // 8), -(-width // 8))) < 0.7
    found = difference_cells(a, b, wanted)
    np.testing.assert_array_equal(found, sums_of_cells(a, b, wanted))


def test_pixels_of_unwanted_cells_are_not_read():
    a = np.ones((16, 24), np.float32)
    wanted = np.array([[True, False, True], [False, False, True]])
    count, total, _ = difference_cells(a, np.zeros_like(a), wanted)
    np.testing.assert_array_equal(count, np.where(wanted, 64, 0))
    np.testing.assert_array_equal(total, count)


def _cut(size, rng):
    edges = np.sort([0, size, *rng.integers(0, size + 1, 3)]).tolist()
    return [slice(*pair) for pair in pairwise(edges)]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    st.integers(0, 30),
    st.integers(0, 40),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([None, 0, 5]),
    st.integers(0, 2**31),
)
def test_bad_pixels_are_blanked_whatever_pieces_come_together(height, width, bad, bits, seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(0.0, 1.0, (height, width)).astype(np.float32)
    image[rng.random(image.shape) < 0.5 * bad] = np.inf
    image[rng.random(image.shape) < 0.5 * bad] = np.nan
    mask = None if bits is None else rng.choice([0, 1, 2, 4], image.shape).astype(np.int32)
    good = np.isfinite(image) & (True if mask is None else (mask & bits) == 0)
    expected = np.where(good, image, np.float32(np.nan))
    seen, by_pieces = np.zeros((2, *cells_of(image.shape)), bool)
    out, bare = np.empty_like(image), np.zeros(image.shape, np.int32) if mask is None else mask
    for rows in _cut(height, rng):
        for columns in _cut(width, rng):
            # A piece may be a part of a chunk.
            part = tuple(np.pad(plane[rows, columns], ((1, 2), (3, 0))) for plane in (image, bare))
            take_good_pixels(part, (1, 3), bits or 0, (rows, columns), out, by_pieces)
    blank_bad_pixels(image, mask, bits or 0, seen)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(by_pieces, seen)
    np.testing.assert_array_equal(image, expected)
    assert seen.shape == (-(-height // 8), -(-width // 8))
    for row, column in np.ndindex(seen.shape):
        cell = good[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert seen[row, column] == cell.any()


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.0, 0.6), st.integers(0, 2**31))
def test_cells_grow_as_binary_propagation_and_dilation_do(height, width, share, seed):
    rng = np.random.default_rng(seed)
    allowed = rng.random((height, width)) < share
    seeds = allowed & (rng.random(allowed.shape) < 0.1)
    square = np.ones((3, 3), bool)
    expected = binary_dilation(binary_propagation(seeds, square, mask=allowed), square)
    np.testing.assert_array_equal(grow_cells(seeds, allowed), expected)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
def test_blocks_sum_the_pixels_that_hold_data(dtype):
    plane = np.random.default_rng(8).integers(0, 4, (20, 31)).astype(dtype)
    if dtype != "i4":
        plane[plane == 0] = np.nan
        plane[3, 3] = np.inf
    good = np.isfinite(plane) & (plane != 0)
    y, x = np.array([0, 7, 14, 20]), np.array([0, 1, 16, 31])
    total, count = sum_blocks(plane, y, x)
    for row, column in np.ndindex(3, 3):
        block = (slice(y[row], y[row + 1]), slice(x[column], x[column + 1]))
        assert count[row, column] == good[block].sum()
        assert total[row, column] == plane[block][good[block]].sum()
