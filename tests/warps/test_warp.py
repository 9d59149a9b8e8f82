import numpy as np
import pytest

from bgmatch_dask.errors import GeometryError
from bgmatch_dask.geometry import Box
from bgmatch_dask.warps.warp import Warp


def _planes(shape):
    return np.zeros(shape, np.float32), np.ones(shape, np.float32), np.zeros(shape, np.int32)


def test_crop_takes_tract_pixels_without_copying():
    image, variance, mask = _planes((20, 30))
    image[7, 4] = 5.0
    warp = Warp(Box(100, 200, 30, 20), image, variance, mask)
    part = warp.crop(Box(104, 207, 3, 2))
    assert part.image.shape == (2, 3)
    assert part.image[0, 0] == 5.0
    assert np.shares_memory(part.image, image)


def test_crop_outside_is_refused():
    warp = Warp(Box(0, 0, 30, 20), *_planes((20, 30)))
    with pytest.raises(GeometryError) as caught:
        warp.crop(Box(-1, 0, 3, 3))
    assert caught.value.code == "box-outside"


@pytest.mark.parametrize("plane", [0, 1, 2])
@pytest.mark.parametrize("change", ["shape", "dtype"])
def test_planes_must_fit_the_box(plane, change):
    planes = list(_planes((20, 30)))
    planes[plane] = planes[plane][1:] if change == "shape" else planes[plane].astype(np.float64)
    with pytest.raises(GeometryError) as caught:
        Warp(Box(0, 0, 30, 20), *planes)
    assert caught.value.code == "warp-shape"
