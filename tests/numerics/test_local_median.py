import itertools

import numpy as np
import pytest
from scipy.ndimage import median_filter

from bgmatch_dask.numerics import local_median as module
from bgmatch_dask.numerics.local_median import local_median


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (4, 70), (37, 41), (5, 128), (2, 300)])
@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_the_local_median_is_that_of_scipy(shape, decimals):
    values = np.round(np.random.default_rng(7).normal(0.0, 2.0, shape), decimals)
    expected = median_filter(values, size=9, mode="nearest")
    np.testing.assert_array_equal(local_median(values), expected)


@pytest.mark.parametrize("height", [1, 2, 4, 9, 37])
def test_rows_may_share_a_local_median(height):
    values = np.random.default_rng(8).normal(0.0, 2.0, (height, 23))
    expected = median_filter(values, size=9, mode="nearest")
    found = local_median(values, 3)
    for row in range(height):
        middle = min(row // 3 * 3 + 1, height - 1)
        np.testing.assert_array_equal(found[row], expected[middle])


def run(network, values):
    values = list(values)
    for a, b in network.pairs:
        values[a], values[b] = min(values[a], values[b]), max(values[a], values[b])
    return [values[k] for k in network.order]


@pytest.mark.parametrize("n", [2, 5, 9])
def test_a_network_that_sorts_zeros_and_ones_sorts_everything(n):
    """Knuth's principle of zeros and ones: these inputs prove it for all."""
    network = module._sorting(n)
    for values in itertools.product((0, 1), repeat=n):
        assert run(network, values) == sorted(values)


@pytest.mark.parametrize(("n", "wanted"), [(9, range(18)), (18, range(36)), (36, range(31, 41))])
def test_a_network_merges_all_lists_of_zeros_and_ones(n, wanted):
    network = module._merging(n, wanted)
    for a, b in itertools.product(range(n + 1), repeat=2):
        values = [0] * a + [1] * (n - a) + [0] * b + [1] * (n - b)
        assert run(network, values) == [sorted(values)[k] for k in wanted]
