"""Gzipped tiles give the numbers that astropy gives, and broken ones are found."""

from __future__ import annotations

import io

import numpy as np
import pytest
from astropy.io import fits

from bgmatch_dask.errors import InputError
from bgmatch_dask.warps import tiles
from bgmatch_dask.warps.fits_checks import open_checked

INFLATERS = [tiles._with_zlib]
if tiles.deflate is not None:
    INFLATERS.append(tiles._with_libdeflate)
WINDOW = (slice(3, 17), slice(5, 30))
RNG = np.random.default_rng(5)
PLANES = {
    "float": RNG.normal(100, 5, (20, 33)).astype(np.float32),
    "int": RNG.integers(-(2**31), 2**31, (20, 33)).astype(np.int32),
}
PLANES["float"][4, 6:9] = [np.nan, np.inf, -0.0]


@pytest.fixture(params=INFLATERS, ids=lambda f: f.__name__)
def inflater(request, monkeypatch):
    monkeypatch.setattr(tiles, "_inflate", request.param)


def _rows_of(hdu):
    place = hdu.fileinfo()
    place["file"].seek(place["hdrLoc"])
    size = place["datLoc"] - place["hdrLoc"]
    return tiles.RowTiles.of(fits.Header.fromstring(place["file"].read(size)))


def written(tmp_path, values, **options):
    path = tmp_path / "plane.fits"
    options = {"compression_type": "GZIP_2", "tile_shape": (1, 33), "quantize_level": 0} | options
    hdus = [fits.PrimaryHDU(), fits.CompImageHDU(values, name="IMAGE", **options)]
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize("kind", PLANES)
@pytest.mark.parametrize("algorithm", ["GZIP_1", "GZIP_2"])
@pytest.mark.usefixtures("inflater")
def test_rows_are_those_that_were_written(tmp_path, kind, algorithm):
    path = written(tmp_path, PLANES[kind], compression_type=algorithm)
    with open_checked(path) as hdus:
        assert _rows_of(hdus["IMAGE"]) is not None
        found = tiles.read_plane(hdus["IMAGE"], WINDOW)
    assert found.dtype.isnative
    assert found.tobytes() == PLANES[kind][WINDOW].tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {"tile_shape": (10, 33)},
        {"compression_type": "RICE_1", "quantize_level": 16},
        {"quantize_level": 16},
    ],
)
def test_other_compressions_are_left_to_astropy(tmp_path, options):
    path = written(tmp_path, PLANES["float"][5:], **options)
    with open_checked(path) as hdus:
        assert _rows_of(hdus["IMAGE"]) is None
        found = tiles.read_plane(hdus["IMAGE"], WINDOW)
        np.testing.assert_array_equal(found, hdus["IMAGE"].data[WINDOW])


@pytest.mark.usefixtures("inflater")
def test_every_changed_byte_of_a_row_is_found(tmp_path):
    path = written(tmp_path, PLANES["float"])
    good = path.read_bytes()
    with fits.open(path) as hdus:
        place = hdus["IMAGE"].fileinfo()["datLoc"] + 20 * 8
    first_row = good[place : good.index(b"\x1f\x8b\x08", place + 3)]
    # Beyond the ten bytes of the gzip header, which carry no pixel.
    codes = []
    for offset in range(10, len(first_row), 3):
        broken = bytearray(good)
        broken[place + offset] ^= 0x10
        path.write_bytes(broken)
        try:
            with open_checked(path, checksum=False) as hdus:
                rows = tiles.read_plane(hdus["IMAGE"], (slice(0, 20), slice(0, 33)))
        except InputError as error:
            codes.append(error.code)
        else:  # The last byte of a stream has bits that mean nothing.
            assert rows.tobytes() == PLANES["float"].tobytes()
    assert set(codes) == {"fits-unreadable"}
    assert len(codes) >= len(range(10, len(first_row), 3)) - 1


@pytest.mark.parametrize("descriptor", [(0, 0), (10, -5), (10, 2**30), (2**30, 0)])
def test_a_row_outside_its_table_is_refused(tmp_path, descriptor):
    path = written(tmp_path, PLANES["float"])
    data = bytearray(path.read_bytes())
    with fits.open(path) as hdus:
        start = hdus["IMAGE"].fileinfo()["datLoc"]
    data[start : start + 8] = np.array(descriptor, ">i4").tobytes()
    path.write_bytes(data)
    with pytest.raises(InputError, match="outside its table"), open_checked(path) as hdus:
        tiles.read_plane(hdus["IMAGE"], (slice(0, 20), slice(0, 33)))


@pytest.mark.usefixtures("inflater")
def test_a_row_that_inflates_to_more_than_its_size_is_refused():
    import gzip

    buffer = io.BytesIO()
    with gzip.open(buffer, "wb") as stream:
        stream.write(bytes(10_000))
    with pytest.raises(ValueError, match="row"):
        tiles._row(memoryview(buffer.getvalue()), 16)
