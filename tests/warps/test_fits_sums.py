"""Checksums of FITS files against astropy's, and against bytes that changed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.errors import InputError
from bgmatch_dask.numerics.word_sums import add_words
from bgmatch_dask.warps.fits_checks import open_checked
from bgmatch_dask.warps.fits_structure import check_structure
from bgmatch_dask.warps.fits_sums import check_sums


def plain_sum(data: bytes) -> int:
    total = sum(int.from_bytes(data[i : i + 4], "big") for i in range(0, len(data), 4))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


@settings(deadline=None)
@given(st.binary(max_size=400), st.binary(max_size=400))
def test_words_add_up_as_in_plain_arithmetic(first, second):
    first, second = (data[: len(data) // 4 * 4] for data in (first, second))
    total = add_words(np.frombuffer(first, np.uint8))
    assert total == plain_sum(first)
    assert add_words(np.frombuffer(second, np.uint8), total) == plain_sum(first + second)


def test_carries_are_not_lost():
    ones = np.full(4 * 1000, 255, np.uint8)
    assert add_words(ones, 1) == 1
    assert add_words(ones) == 0xFFFFFFFF


def written(seed: int) -> bytes:
    """Return a file as astropy writes it: planes, compressed and not, and a table."""
    random = np.random.default_rng(seed)
    plane = random.normal(0, 10, (91, 83)).astype(np.float32)
    mask = random.integers(0, 9, (91, 83), dtype=np.int32)
    hdus = fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(plane, name="IMAGE"),
            fits.CompImageHDU(mask, name="MASK", compression_type="GZIP_2"),
            fits.BinTableHDU.from_columns([fits.Column("a", "D", array=random.random(9))]),
        ]
    )
    stream = io.BytesIO()
    hdus.writeto(stream, checksum=True)
    return stream.getvalue()


def check(data: bytes) -> None:
    units = check_structure(io.BytesIO(data), len(data), "file", 10**6)
    assert all(unit.checksum and unit.datasum for unit in units)
    check_sums(io.BytesIO(data), units, "file")


def test_what_astropy_writes_is_right():
    data = written(0)
    with fits.open(io.BytesIO(data), disable_image_compression=True) as hdus:
        recorded = [hdu.header["DATASUM"] for hdu in hdus]
    units = check_structure(io.BytesIO(data), len(data), "file", 10**6)
    assert [unit.datasum for unit in units] == recorded
    check(data)


def test_one_changed_byte_of_data_or_of_a_comment_is_found():
    data = bytearray(written(1))
    units = check_structure(io.BytesIO(data), len(data), "file", 10**6)
    places = [unit.start + 79 for unit in units]
    places += [(unit.data + unit.end) // 2 for unit in units if unit.end > unit.data]
    for place in places:
        broken = data.copy()
        broken[place] ^= 1
        with pytest.raises(InputError) as caught:
            check(bytes(broken))
        assert caught.value.code == "fits-checksum"


def test_sums_that_are_not_there_are_not_missed(tmp_path):
    path = tmp_path / "plain.fits"
    fits.writeto(path, np.ones((3, 4), np.float32))
    for text in ("''", "'                '"):
        data = path.read_bytes().replace(b"END" + 77 * b" ", f"CHECKSUM= {text}".ljust(80).encode())
        end = data.rfind(b"CHECKSUM")
        (tmp_path / "empty.fits").write_bytes(
            data[: end + 80] + b"END".ljust(80) + data[end + 160 :]
        )
        with open_checked(tmp_path / "empty.fits") as hdus:
            assert hdus[0].data.sum() == 12


def test_a_file_that_becomes_shorter_is_told():
    data = written(2)
    units = check_structure(io.BytesIO(data), len(data), "file", 10**6)
    with pytest.raises(InputError) as caught:
        check_sums(io.BytesIO(data[:-2880]), units, "file")
    assert caught.value.code == "fits-truncated"
