import pytest

from bgmatch_dask.errors import ConfigError
from bgmatch_dask.maskplanes import MASK_PLANES, bits_of


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
