import numpy as np
import pytest
from scipy.ndimage import median_filter

from bgmatch_dask.numerics.cell_maps import (
    difference_cells,
    local_median,
    mark_cells,
    quadratic_moments,
    sum_blocks,
)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (4, 70), (37, 41)])
@pytest.mark.parametrize("decimals", [0, 1, 12])
@pytest.mark.parametrize("size", [1, 3, 9, 11])
def test_the_local_median_is_that_of_scipy(shape, decimals, size):
    values = np.round(np.random.default_rng(7).normal(0.0, 2.0, shape), decimals)
    expected = median_filter(values, size=size, mode="nearest")
    np.testing.assert_array_equal(local_median(values, size), expected)


@pytest.mark.parametrize("height", [1, 2, 4, 9, 37])
def test_rows_may_share_a_local_median(height):
    values = np.random.default_rng(8).normal(0.0, 2.0, (height, 23))
    expected = median_filter(values, size=9, mode="nearest")
    found = local_median(values, 9, 3)
    for row in range(height):
        middle = min(row // 3 * 3 + 1, height - 1)
        np.testing.assert_array_equal(found[row], expected[middle])


def test_cells_sum_the_good_pixels():
    rng = np.random.default_rng(5)
    a, b = (rng.normal(10.0, 3.0, (21, 30)).astype(np.float32) for _ in range(2))
    a[3, 4], b[20, 29] = np.nan, np.inf
    a_mask, b_mask = (rng.choice([0, 1, 2, 4], a.shape).astype(np.int32) for _ in range(2))
    good = np.isfinite(a) & np.isfinite(b) & (((a_mask | b_mask) & 5) == 0)
    count, total, squares = difference_cells(a, a_mask, b, b_mask, 5, 8)
    assert count.shape == (3, 4)
    for row, column in np.ndindex(count.shape):
        cell = (slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
        values = a[cell][good[cell]].astype(np.float64) - b[cell][good[cell]]
        assert count[row, column] == len(values)
        assert total[row, column] == pytest.approx(values.sum(), rel=1e-12, abs=1e-12)
        assert squares[row, column] == pytest.approx((values**2).sum(), rel=1e-12)


def test_the_normal_equations_give_back_a_quadratic_surface():
    y, x = np.indices((9, 13)) / 13 - 0.5
    truth = np.array([3.0, -2.0, 0.5, 4.0, 1.0, -6.0])
    values = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1) @ truth
    kept = np.random.default_rng(1).random(values.shape) < 0.7
    values[~kept] = np.nan
    found = np.linalg.solve(*quadratic_moments(values, kept, 13.0))
    np.testing.assert_allclose(found, truth, rtol=1e-8)


def test_cells_are_marked_up_to_the_edge():
    mask = np.arange(21 * 30, dtype=np.int32).reshape(21, 30) & 3
    cells = np.zeros((3, 4), bool)
    cells[0, 1] = cells[2, 3] = True
    expected = mask.copy()
    expected[0:8, 8:16] |= 4
    expected[16:21, 24:30] |= 4
    np.testing.assert_array_equal(mark_cells(mask, cells, 8, 4), expected)


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
