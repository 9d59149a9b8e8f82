"""Plain files are read in one pass to what the general reader gives, and only those."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from bgmatch_dask.errors import InputError
from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import NO_DATA
from bgmatch_dask.warps import lsst
from bgmatch_dask.warps.header_cards import OddCardError, PlainHeader
from bgmatch_dask.warps.lsst import read_lsst_header, read_lsst_warp
from bgmatch_dask.warps.lsst_writing import write_lsst_warp
from bgmatch_dask.warps.plain_file import NOT_PLAIN, plain_file
from bgmatch_dask.warps.warp import Warp

# Planes of more than one piece of the reader, and not of whole pieces.
BOX = Box(50, 20, 301, 283)
WCS_CARDS = (
    *(("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRVAL1", 150.1), ("CRVAL2", -2.2)),
    *(("CRPIX1", 90.5), ("CRPIX2", 90.5), ("CD1_1", -5.5e-05), ("CD2_2", 5.5e-05)),
)
FACTS = (("EXPTIME", 30.0), ("MJD-AVG", 61000.25), ("SEEING", 0.75))


@pytest.fixture
def path(tmp_path):
    return _written(tmp_path)


@pytest.fixture(params=[False, True], ids=["as they are", "gzipped"])
def either(tmp_path, request):
    return _written(tmp_path, compressed=request.param)


def _written(tmp_path, *, compressed=False):
    rng = np.random.default_rng(8)
    image = rng.normal(300.0, 20.0, BOX.shape).astype(np.float32)
    variance = rng.uniform(200.0, 400.0, BOX.shape).astype(np.float32)
    mask = rng.integers(0, 2**7, BOX.shape).astype(np.int32)
    image[3, 4:90], variance[5, 6], mask[7:30] = np.inf, -1.0, NO_DATA
    path = tmp_path / "warp.fits"
    labels = {"visit": 12, "tract": 9, "patch": 4, "band": "r"}
    warp = Warp(BOX, image, variance, mask)
    options = {**labels, "compressed": compressed}
    write_lsst_warp(path, warp, WCS_CARDS, **options, cards=FACTS)
    return str(path)


def _planes(warp):
    return [getattr(warp, name).tobytes() for name in ("image", "variance", "mask")]


def test_both_ways_give_the_same(either, monkeypatch):
    path = either
    header, warp = read_lsst_header(path), read_lsst_warp(path)
    assert warp.checksum == blake3(Path(path).read_bytes()).hexdigest(16)

    def never(*_):
        raise OddCardError("none is plain")

    monkeypatch.setattr(lsst, "plain_file", never)
    assert read_lsst_header(path) == header
    other = read_lsst_warp(path)
    assert not other.checksum
    assert (other.box, _planes(other)) == (warp.box, _planes(warp))


def test_every_byte_counts(either):
    path = either
    names = ("IMAGE", "VARIANCE", "MASK")
    images, _ = plain_file(path, 10**6).read(names)
    with fits.open(path) as hdus:
        places = [hdus[name].fileinfo()["datLoc"] for name in names]
        assert all(
            np.array_equal(a, hdus[n].data, equal_nan=True)
            for a, n in zip(images, names, strict=True)
        )
    good = Path(path).read_bytes()
    for at in [place + 3000 for place in places]:
        bad = bytearray(good)
        bad[at] ^= 4
        Path(path).write_bytes(bad)
        with pytest.raises(NOT_PLAIN):
            plain_file(path, 10**6).read(names)
        with pytest.raises(InputError) as caught:
            read_lsst_warp(path)
        # Rows that are gzipped have sums of their own.
        gzipped = plain_file(path, 10**6).hdus[1].tiles is not None
        assert caught.value.code == ("fits-unreadable" if gzipped else "fits-checksum")


@pytest.mark.parametrize("card", ["BSCALE", "BZERO"])
def test_scaled_numbers_are_left_to_the_general_reader(path, card):
    with fits.open(path, memmap=False) as hdus:
        plain = hdus["IMAGE"].data.astype(np.float32)
    _put_card(path, card)
    assert [hdu.name for hdu in plain_file(path, 10**6).hdus] == ["PRIMARY"]
    warp = read_lsst_warp(path)
    good = np.isfinite(warp.image)
    assert good.any()
    expected = plain * 2 if card == "BSCALE" else plain + 2
    np.testing.assert_array_equal(warp.image[good], expected[good])
    assert not warp.checksum


def test_compressions_of_another_kind_are_left_to_the_general_reader(tmp_path):
    path = _written(tmp_path, compressed=True)
    with fits.open(path, memmap=False) as hdus:
        images = {name: hdus[name].data for name in ("IMAGE", "MASK", "VARIANCE")}
        headers = {name: hdus[name].header for name in images}
        parts = [
            fits.CompImageHDU(images[n], headers[n], n, "GZIP_2", (64, 64), quantize_level=0)
            for n in images
        ]
        fits.HDUList([hdus[0], *parts]).writeto(path, overwrite=True)
    assert [hdu.name for hdu in plain_file(path, 10**6).hdus] == ["PRIMARY"]
    warp = read_lsst_warp(path)
    good = np.isfinite(warp.image)
    np.testing.assert_array_equal(warp.image[good], images["IMAGE"][good])


def test_a_broken_row_is_told_by_the_general_reader(tmp_path):
    path = _written(tmp_path, compressed=True)
    with fits.open(path, memmap=False) as hdus:
        place = hdus.info(output=False) and hdus["MASK"].fileinfo()["datLoc"]
    data = bytearray(Path(path).read_bytes())
    # The size of the first row, and no sums that would tell.
    data[place : place + 4] = (10**6).to_bytes(4, "big")
    for key in (b"CHECKSUM", b"DATASUM "):
        while (at := data.find(key + b"= ")) >= 0:
            data[at : at + 8] = b"NOTHING "
    Path(path).write_bytes(data)
    with pytest.raises(ValueError, match="outside its table"):
        plain_file(path, 10**6).read(("MASK",))
    with pytest.raises(InputError, match="outside its table") as caught:
        read_lsst_warp(path)
    assert caught.value.code == "fits-unreadable"


def _put_card(path, card):
    """Write a card into the header of the image in place, and drop its sums."""
    data = bytearray(Path(path).read_bytes())
    start = data.index(b"XTENSION")
    header = bytes(data[start : start + 2 * 2880])
    for key, text in ((b"CHECKSUM", f"{card:8}= {2.0:>20}"), (b"DATASUM ", "")):
        at = start + header.index(key)
        data[at : at + 80] = f"{text:80}".encode()
    Path(path).write_bytes(data)


NAMES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=1, max_size=8)
VALUES = st.one_of(
    st.integers(-(10**12), 10**12),
    st.floats(-1e30, 1e30, allow_nan=False),
    st.booleans(),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
)


@given(st.dictionaries(NAMES | NAMES.map("LONG KEYWORD {}".format), VALUES, max_size=20))
def test_cards_read_as_astropy_reads_them(values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = fits.Header()
        for key, value in values.items():
            if key not in {"END", "COMMENT", "HISTORY", "CONTINUE", "SIMPLE", "HIERARCH"}:
                header[key] = value
        block = header.tostring().encode()
        try:
            plain = PlainHeader.read(block)
        except OddCardError:
            return
        again = fits.Header.fromstring(block)
        assert list(plain) == list(dict.fromkeys(k for k in again if k))
        for key in plain:
            try:
                value = plain[key]
            except OddCardError:
                continue
            assert (value, type(value)) == (again[key], type(again[key]))


@pytest.mark.parametrize(
    "card",
    [
        "lower   = 1",
        "CONTINUE  'more'",
        "NOVALUE",
        "A       =1",
        "HIERARCH a b = 1",
        "B\x01      = 1",
    ],
)
def test_odd_headers_are_refused(card):
    with pytest.raises(OddCardError):
        PlainHeader.read(f"{card:80}{'END':2800}".encode())


@pytest.mark.parametrize("text", ["", "'on and on&'", "'open", "1 2", "(1, 2)", "''", "0x1"])
def test_odd_values_are_refused(text):
    header = PlainHeader.read(f"{'KEY     = ' + text:80}{'END':2800}".encode())
    assert "KEY" in header
    with pytest.raises(OddCardError):
        header["KEY"]


def test_a_header_without_an_end_is_refused():
    for block in (f"{'A       = 1':2880}", f"{'END':80}{'A       = 1':2800}"):
        with pytest.raises(OddCardError):
            PlainHeader.read(block.encode())
