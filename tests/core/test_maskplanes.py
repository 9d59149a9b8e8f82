import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.errors import ConfigError
from bgmatch_dask.maskplanes import MASK_PLANES, OTHER, bits_of, remap_mask

DTYPES = [np.uint8, np.int16, np.int32, np.uint32, np.int64, ">i4", ">i2"]


def test_planes_have_a_bit_each_that_fits_int32():
    bits = list(MASK_PLANES.values())
    assert len(set(bits)) == len(bits)
    assert all(0 <= bit < 31 for bit in bits)
    # The order of LSST's own default planes.
    first = [
        "BAD",
        "SAT",
        "INTRP",
        "CR",
        "EDGE",
        "DETECTED",
        "DETECTED_NEGATIVE",
        "SUSPECT",
        "NO_DATA",
    ]
    assert [MASK_PLANES[name] for name in first] == list(range(9))


def test_bits_of_names():
    assert bits_of(()) == 0
    assert bits_of(("SAT", "NO_DATA", "SAT")) == 0b100000010


def test_an_unknown_plane_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="NO_DATA") as caught:
        bits_of(("NODATA",))
    assert caught.value.code == "mask-plane-unknown"


@settings(deadline=None)
@given(
    order=st.permutations(sorted(set(MASK_PLANES) - {"OTHER"})),
    values=st.lists(st.integers(0, 2**18 - 1), min_size=1, max_size=30),
)
def test_remapping_there_and_back_changes_nothing(order, values):
    """A file may number the planes in any order."""
    planes = {name: bit for bit, name in enumerate(order)}
    mask = np.array(values, np.int32)
    stored = remap_mask(mask, planes)
    back = np.zeros_like(mask)
    for name, bit in planes.items():
        back |= ((stored >> MASK_PLANES[name]) & 1) << bit
    np.testing.assert_array_equal(back, mask)
    np.testing.assert_array_equal(remap_mask(stored, MASK_PLANES), stored)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_integer_dtype(dtype):
    mask = np.array([[0, 1], [4, 5]]).astype(dtype)
    out = remap_mask(mask, {"SAT": 0, "BAD": 2})
    assert out.dtype == np.int32
    np.testing.assert_array_equal(out, [[0, 2], [1, 3]])


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_the_sign_bit_is_one_plane_and_no_more(dtype):
    top = 8 * np.dtype(dtype).itemsize - 1
    mask = np.array([np.iinfo(dtype).min, 0], dtype)
    np.testing.assert_array_equal(remap_mask(mask, {"SAT": top, "BAD": 0}), [2, 0])


@pytest.mark.parametrize("bit", [3, 31, 40])
def test_set_bits_without_a_name_are_other(bit):
    out = remap_mask(np.array([1 << bit, 1], np.int64), {"SAT": 0})
    np.testing.assert_array_equal(out, [OTHER, 2])


def test_planes_that_the_store_lacks_are_other():
    out = remap_mask(np.array([1, 2], np.int32), {"MY_PLANE": 0, "SAT": 1})
    np.testing.assert_array_equal(out, [OTHER, 2])


def test_two_planes_of_a_file_may_share_a_bit():
    out = remap_mask(np.array([1], np.int32), {"SAT": 0, "BAD": 0})
    np.testing.assert_array_equal(out, [3])


def test_the_input_is_left_alone():
    mask = np.array([3], np.int64)
    remap_mask(mask, {"SAT": 0})
    assert mask[0] == 3
