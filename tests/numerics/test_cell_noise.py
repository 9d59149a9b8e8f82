import numpy as np

from bgmatch_dask.numerics.cell_noise import error_of_mean, mean_and_spread, scaled_deviations

SHAPE = (23, 31)


def test_means_and_errors_of_cells_are_those_of_plain_numpy():
    rng = np.random.default_rng(1)
    count = rng.integers(0, 65, SHAPE).astype(float)
    total, squares = rng.normal(size=SHAPE), rng.uniform(50, 60, SHAPE)
    mean, spread = mean_and_spread(count, total, squares, 16.0)
    n = np.where(count >= 16, count, np.nan)
    assert mean.tobytes() == (total / n).tobytes()
    expected = squares / n - (total / n) ** 2
    assert spread.tobytes() == expected[count >= 16].tobytes()
    np.testing.assert_array_equal(error_of_mean(count, mean, 1.7), 1.7 / np.sqrt(n))


def test_deviations_are_those_of_plain_numpy():
    rng = np.random.default_rng(2)
    values, around = rng.normal(size=(2, *SHAPE))
    error, seen = rng.uniform(1, 2, SHAPE), rng.random(SHAPE) < 0.7
    values[~seen] = error[~seen] = np.nan
    found, of_seen = scaled_deviations(values, around, error, seen)
    expected = np.abs(values - around) / error
    assert found.tobytes() == np.where(seen, expected, 0.0).tobytes()
    assert of_seen.tobytes() == expected[seen].tobytes()
