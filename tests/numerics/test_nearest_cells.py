import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from bgmatch_dask.numerics.nearest_cells import fill_from_nearest


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("shape", [(40, 31), (1, 60), (60, 1), (7, 90)])
def test_cells_are_filled_as_by_the_distance_transform(share, shape):
    """Values are all different: ties go to the same cell too."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        seen = rng.random(shape) < share
        seen[rng.integers(shape[0]), rng.integers(shape[1])] = True
        values = np.where(seen, rng.permutation(seen.size).reshape(shape) + 1.0, np.nan)
        distance, (rows, columns) = distance_transform_edt(~seen, return_indices=True)
        expected = values[rows, columns]
        np.testing.assert_array_equal(fill_from_nearest(values, seen, 90), expected)
        near, found = distance <= 6, fill_from_nearest(values, seen, 6)
        np.testing.assert_array_equal(found[near], expected[near])
        assert np.isfinite(found).all()
