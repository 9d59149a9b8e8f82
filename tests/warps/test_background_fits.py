"""Lists of backgrounds as files: exact round trip, layout, hostile files."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from bgmatch_dask.errors import ConfigError, InputError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.background_list import BackgroundElement, BackgroundList
from bgmatch_dask.numerics.chebyshev import ChebyshevControl, Weighting
from bgmatch_dask.numerics.gridded import background_from_values
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.rendering import UndersampleStyle
from bgmatch_dask.warps.background_fits import read_background_list, write_background_list

BOX = Box(-310, 11422, 90, 105)
KEYS = [
    "INTERPSTYLE", "UNDERSAMPLESTYLE", "APPROXSTYLE", "APPROXORDERX", "APPROXORDERY",
    "APPROXWEIGHTING", "BKGD_X0", "BKGD_Y0", "BKGD_WIDTH", "BKGD_HEIGHT",
]  # fmt: skip


@pytest.fixture
def backgrounds():
    rng = np.random.default_rng(8)
    made = []
    for shape, polynomial in (
        ((5, 6), None),
        ((2, 3), ChebyshevControl(1, Weighting.INVERSE_SIGMA)),
        ((7, 7), ChebyshevControl(3)),
        ((6, 5), ChebyshevControl(2, Weighting.NONE)),
    ):
        values = rng.normal(100, 5, shape)
        values[0, 1] = np.nan
        mask = rng.integers(-(2**31), 2**31, shape)
        background = background_from_values(BOX, values, rng.random(shape), mask)
        style = InterpStyle.NATURAL_SPLINE if polynomial is None else InterpStyle.AKIMA_SPLINE
        rule = UndersampleStyle.REDUCE_INTERP_ORDER
        made.append(BackgroundElement(background, style, rule, polynomial))
    return BackgroundList(made)


def test_round_trip_is_exact(backgrounds, tmp_path):
    path = tmp_path / "sky.fits"
    write_background_list(backgrounds, path)
    back = read_background_list(path)
    assert len(back) == len(backgrounds)
    for one, two in zip(backgrounds, back, strict=True):
        assert (one.style, one.undersample) == (two.style, two.undersample)
        assert two.background.box == BOX
        if one.approximation is None:
            assert two.approximation is None
        else:
            assert one.approximation.order == two.approximation.order
            assert one.approximation.weighting is two.approximation.weighting
        for plane in ("values", "variance", "mask"):
            a, b = getattr(one.background, plane), getattr(two.background, plane)
            assert a.dtype == b.dtype
            assert a.tobytes() == b.tobytes()
    np.testing.assert_array_equal(back.render(), backgrounds.render())
    assert [entry.name for entry in tmp_path.iterdir()] == ["sky.fits"]


def test_layout(backgrounds, tmp_path):
    path = tmp_path / "sky.fits"
    write_background_list(backgrounds, path)
    with fits.open(path) as hdus:
        assert len(hdus) == 12
        header = hdus[0].header
        assert [header[key] for key in KEYS] == [2, 1, -1, -1, -1, True, -310, 11422, 90, 105]
        assert [hdu.header["BITPIX"] for hdu in hdus[:3]] == [-32, 32, -32]
        assert hdus[5].header["APPROXORDERX"] == 1
        assert hdus[11].header["APPROXWEIGHTING"] is False


def test_files_without_our_own_card(backgrounds, tmp_path):
    path = tmp_path / "sky.fits"
    write_background_list(backgrounds, path)
    with fits.open(path, mode="update") as hdus:
        for hdu in hdus:
            del hdu.header["APPROXWEIGHTKIND"]
            del hdu.header["BKGD_COUNT"]
    weightings = [e.approximation.weighting for e in read_background_list(path) if e.approximation]
    assert weightings == [Weighting.INVERSE_VARIANCE] * 2 + [Weighting.NONE]


def test_an_empty_list_has_no_file(tmp_path):
    with pytest.raises(ConfigError, match="background-list-empty"):
        write_background_list(BackgroundList(), tmp_path / "sky.fits")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INTERPSTYLE", 99), ("UNDERSAMPLESTYLE", "no"), ("APPROXSTYLE", 7), ("BKGD_WIDTH", 2),
        ("BKGD_HEIGHT", None), ("APPROXORDERY", 9), ("BKGD_X0", "far"),
    ],
)  # fmt: skip
def test_cards_that_make_no_sense(backgrounds, tmp_path, key, value):
    path = tmp_path / "sky.fits"
    write_background_list(backgrounds, path)
    with fits.open(path, mode="update") as hdus:
        for hdu in hdus:
            if value is None:
                del hdu.header[key]
            else:
                hdu.header[key] = value
            # Cards are what is tested here, not the checksum that would find them changed.
            del hdu.header["CHECKSUM"]
    with pytest.raises(InputError, match="background-fits-layout"):
        read_background_list(path)


def test_planes_that_make_no_sense(backgrounds, tmp_path):
    path = tmp_path / "sky.fits"
    write_background_list(backgrounds, path)
    with fits.open(path) as hdus:
        fits.HDUList([hdu.copy() for hdu in hdus[:4]]).writeto(tmp_path / "four.fits")
        odd = [hdus[0].copy(), hdus[1].copy(), hdus[5].copy()]
        fits.HDUList(odd).writeto(tmp_path / "odd.fits")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(), fits.ImageHDU()]).writeto(
        tmp_path / "no_pixels.fits"
    )
    for name in ("four", "odd", "no_pixels"):
        with pytest.raises(InputError, match="background-fits-layout"):
            read_background_list(tmp_path / f"{name}.fits")


def test_broken_files(backgrounds, tmp_path):
    path = tmp_path / "sky.fits"
    write_background_list(backgrounds, path)
    content = bytearray(path.read_bytes())
    for share in (0.5, 0.6):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError, match="fits-"):
            read_background_list(path)
    path.write_bytes(content)
    with fits.open(path) as hdus:
        start = hdus[0].fileinfo()["datLoc"]
    content[start + 3] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(InputError, match="fits-checksum"):
        read_background_list(path)
    with pytest.raises(InputError, match="path-unreadable"):
        read_background_list(tmp_path / "missing.fits")


def test_equal_lists_are_equal_bytes(backgrounds, tmp_path):
    write_background_list(backgrounds, tmp_path / "a.fits")
    write_background_list(backgrounds, tmp_path / "b.fits")
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    assert b"HDU checksum" in (tmp_path / "a.fits").read_bytes()
