import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.maskplanes import MASK_PLANES, NO_DATA, OTHER, byte_tables
from bgmatch_dask.numerics.pixel_planes import clean_planes

DTYPES = [np.uint8, np.int16, np.int32, np.uint32, ">i4", ">i2"]


def _remapped(mask, planes):
    image, variance = (np.ones(np.atleast_2d(mask).shape, np.float32) for _ in range(2))
    bits, _ = clean_planes(image, variance, np.atleast_2d(mask), byte_tables(planes), NO_DATA)
    return bits.reshape(mask.shape)


@settings(deadline=None)
@given(
    order=st.permutations(sorted(set(MASK_PLANES) - {"OTHER"})),
    values=st.lists(st.integers(0, 2**18 - 1), min_size=1, max_size=30),
)
def test_remapping_there_and_back_changes_nothing(order, values):
    """A file may number the planes in any order."""
    planes = {name: bit for bit, name in enumerate(order)}
    mask = np.array(values, np.int32)
    stored = _remapped(mask, planes)
    back = np.zeros_like(mask)
    for name, bit in planes.items():
        back |= ((stored >> MASK_PLANES[name]) & 1) << bit
    np.testing.assert_array_equal(back, mask)
    np.testing.assert_array_equal(_remapped(stored, MASK_PLANES), stored)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_integer_dtype(dtype):
    mask = np.array([[0, 1], [4, 5]]).astype(dtype)
    out = _remapped(mask, {"SAT": 0, "BAD": 2})
    assert out.dtype == np.int32
    np.testing.assert_array_equal(out, [[0, 2], [1, 3]])


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_the_sign_bit_is_one_plane_and_no_more(dtype):
    top = 8 * np.dtype(dtype).itemsize - 1
    mask = np.array([np.iinfo(dtype).min, 0], dtype)
    np.testing.assert_array_equal(_remapped(mask, {"SAT": top, "BAD": 0}), [2, 0])


@pytest.mark.parametrize("bit", [3, 31])
def test_set_bits_without_a_name_are_other(bit):
    out = _remapped(np.array([1 << bit, 1], np.uint32), {"SAT": 0})
    np.testing.assert_array_equal(out, [OTHER, 2])


def test_planes_that_the_store_lacks_are_other():
    out = _remapped(np.array([1, 2], np.int32), {"MY_PLANE": 0, "SAT": 1})
    np.testing.assert_array_equal(out, [OTHER, 2])


def test_two_planes_of_a_file_may_share_a_bit():
    out = _remapped(np.array([1], np.int32), {"SAT": 0, "BAD": 0})
    np.testing.assert_array_equal(out, [3])


def test_the_input_is_left_alone():
    mask = np.array([3], np.int32)
    _remapped(mask, {"SAT": 0})
    assert mask[0] == 3


def test_pixels_without_data_are_blank_in_every_plane():
    rng = np.random.default_rng(2)
    image, variance = (rng.normal(3.0, 1.0, (40, 50)).astype(np.float32) for _ in range(2))
    for plane in (image, variance):
        for value in (np.nan, np.inf, -np.inf, 0.0):
            plane[rng.random(plane.shape) < 0.05] = value
    mask = rng.choice([0, 1, 2, 3], image.shape).astype(np.int32)
    no_data = (mask & 2) != 0
    bad = ~np.isfinite(image) | ~np.isfinite(variance) | (variance <= 0) | no_data
    expected = np.where(bad, np.nan, image), np.where(bad, np.inf, variance)
    tables = byte_tables({"SAT": 0, "NO_DATA": 1})
    bits, n_good = clean_planes(image, variance, mask, tables, NO_DATA)
    np.testing.assert_array_equal(image, expected[0])
    np.testing.assert_array_equal(variance, expected[1])
    np.testing.assert_array_equal(bits, np.where(mask & 1, 2, 0) | np.where(bad, NO_DATA, 0))
    assert n_good == np.count_nonzero(~bad)
