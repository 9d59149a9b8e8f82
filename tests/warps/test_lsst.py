import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from bgmatch_dask.errors import InputError
from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import NO_DATA, OTHER, bits_of
from bgmatch_dask.warps.fits_checks import open_checked
from bgmatch_dask.warps.lsst import read_lsst_header, read_lsst_warp
from bgmatch_dask.warps.lsst_writing import write_lsst_warp
from bgmatch_dask.warps.warp import Warp

BOX = Box(550, 1150, 90, 70)
WCS_CARDS = (
    ("CTYPE1", "RA---TAN"),
    ("CTYPE2", "DEC--TAN"),
    ("CUNIT1", "deg"),
    ("CUNIT2", "deg"),
    ("CRVAL1", 150.1),
    ("CRVAL2", 2.2),
    ("CRPIX1", 900.5),
    ("CRPIX2", 900.5),
    ("CD1_1", -5.555e-05),
    ("CD1_2", 0.0),
    ("CD2_1", 0.0),
    ("CD2_2", 5.555e-05),
    ("RADESYS", "ICRS"),
)
LABELS = {"visit": 1214, "tract": 9813, "patch": 4, "band": "r"}


def _warp():
    rng = np.random.default_rng(3)
    image = rng.normal(300.0, 20.0, BOX.shape).astype(np.float32)
    variance = rng.uniform(200.0, 400.0, BOX.shape).astype(np.float32)
    mask = (1 << rng.integers(0, 8, BOX.shape)).astype(np.int32)
    image[:5], variance[:5], mask[:5] = np.nan, np.inf, NO_DATA
    mask[30, 40] = OTHER
    return Warp(BOX, image, variance, mask)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "warp ünit.fits"
    write_lsst_warp(path, _warp(), WCS_CARDS, **LABELS)
    return path


def _edit(path, change):
    """Apply ``change`` to the HDUs of a file, keep all else, and drop the checksums."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        with fits.open(path, memmap=False) as hdus:
            for hdu in hdus:
                _ = hdu.data
                hdu.header.remove("CHECKSUM", ignore_missing=True)
                hdu.header.remove("DATASUM", ignore_missing=True)
            hdus = change(hdus) or hdus
            hdus.writeto(path, overwrite=True)


def _same(a, b):
    return a.box == b.box and all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in ("image", "variance", "mask")
    )


def _code(call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert caught.value.what
    return caught.value.code


def test_round_trip_is_lossless(path):
    assert _same(read_lsst_warp(path), _warp())
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_equal_warps_are_equal_bytes(path, tmp_path):
    write_lsst_warp(tmp_path / "again.fits", _warp(), WCS_CARDS, **LABELS)
    assert (tmp_path / "again.fits").read_bytes() == path.read_bytes()


def test_header(path):
    header = read_lsst_header(path)
    assert header.box == BOX
    assert (header.visit, header.tract, header.patch, header.band) == ("1214", "9813", "4", "r")
    assert header.bunit == "nJy"
    assert header.wcs_cards == WCS_CARDS
    assert dict(header.planes)["NO_DATA"] == 8


def test_local_wcs_agrees_with_tract_wcs(path):
    with fits.open(path) as hdus:
        local = WCS(hdus["IMAGE"].header)
    tract = WCS(fits.Header(list(WCS_CARDS)))
    there = tract.pixel_to_world_values(BOX.x0 + 10, BOX.y0 + 20)
    np.testing.assert_allclose(local.pixel_to_world_values(10, 20), there, rtol=0, atol=1e-12)


def test_labels_are_optional(path):
    def change(hdus):
        for name in ("VISIT", "TRACT", "PATCH", "BAND"):
            del hdus[0].header[f"LSST BUTLER DATAID {name}"]
        del hdus[0].header["EXPID"], hdus[0].header["FILTER"]

    _edit(path, change)
    header = read_lsst_header(path)
    assert (header.visit, header.tract, header.patch, header.band) == (None,) * 4


def test_box_reads_the_common_part(path):
    part = Box(BOX.x0 - 20, BOX.y0 + 8, 50, 10)
    assert _same(read_lsst_warp(path, part), _warp().crop(Box(BOX.x0, BOX.y0 + 8, 30, 10)))
    assert _code(read_lsst_warp, path, Box(0, 0, 5, 5)) == "no-data"


def test_compressed_planes(path):
    def change(hdus):
        planes = [
            fits.CompImageHDU(
                hdu.data, hdu.header, hdu.name, compression_type="GZIP_2", quantize_level=0.0
            )
            for hdu in hdus[1:]
        ]
        return fits.HDUList([fits.PrimaryHDU(header=hdus[0].header), *planes])

    _edit(path, change)
    assert _same(read_lsst_warp(path), _warp())
    assert read_lsst_header(path).box == BOX


def test_lossy_planes_as_the_butler_writes_them(path):
    """RICE with dither, level 16: steps of a sixteenth of the noise; NaN stays NaN."""

    def change(hdus):
        hdus["IMAGE"].data[3, 4] = np.nan
        hdus["VARIANCE"].data[~np.isfinite(hdus["VARIANCE"].data)] = np.nan
        planes = [
            fits.CompImageHDU(
                hdu.data,
                hdu.header,
                hdu.name,
                compression_type="RICE_1",
                quantize_method=2,
                quantize_level=16.0,
                dither_seed=7,
            )
            for hdu in hdus[1:]
        ]
        return fits.HDUList([fits.PrimaryHDU(header=hdus[0].header), *planes])

    _edit(path, change)
    found, exact = read_lsst_warp(path), _warp()
    good = np.isfinite(exact.image) & np.isfinite(found.image)
    assert good.sum() >= np.isfinite(exact.image).sum() - 1
    assert np.isnan(found.image[3, 4])
    assert found.mask[3, 4] & NO_DATA
    noise = np.std(exact.image[good])
    assert np.abs(found.image - exact.image)[good].max() < noise / 4
    np.testing.assert_array_equal(found.mask[good], exact.mask[good])


def test_gzipped_file(path, tmp_path):
    packed = tmp_path / "warp.fits.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert _same(read_lsst_warp(packed), _warp())


def test_gzip_bomb_is_refused(tmp_path):
    packed = tmp_path / "bomb.fits.gz"
    packed.write_bytes(gzip.compress(b"SIMPLE  =                    T".ljust(400_000)))
    assert _code(read_lsst_header, packed, max_pixels=10_000) == "too-large"


def test_mask_planes_are_remapped_from_the_cards_of_the_file(path):
    def change(hdus):
        header = hdus["MASK"].header
        for key in [key for key in header if key.startswith("MP_")]:
            del header[key]
        header["MP_SAT"], header["HIERARCH MP_NO_DATA"] = 3, 1
        header["HIERARCH MP_MYSTERY"] = 5
        hdus["MASK"].data[:] = 0
        hdus["MASK"].data[40, :3] = (1 << 3, 1 << 5, 1 << 1)

    _edit(path, change)
    warp = read_lsst_warp(path)
    assert warp.mask[40, :4].tolist() == [bits_of(["SAT"]), OTHER, NO_DATA, 0]
    assert np.isnan(warp.image[40, 2])
    assert np.isinf(warp.variance[40, 2])


@pytest.mark.parametrize(
    ("plane", "value"),
    [("IMAGE", np.inf), ("VARIANCE", np.nan), ("VARIANCE", 0.0), ("VARIANCE", -1.0)],
)
def test_unusable_pixels_become_no_data_in_all_planes(path, plane, value):
    def change(hdus):
        hdus[plane].data[50, 60] = value

    _edit(path, change)
    warp = read_lsst_warp(path)
    assert np.isnan(warp.image[50, 60])
    assert warp.variance[50, 60] == np.inf
    assert warp.mask[50, 60] & NO_DATA


def test_units(path):
    def change(hdus):
        hdus["IMAGE"].header["BUNIT"] = "adu"

    _edit(path, change)
    assert _code(read_lsst_warp, path) == "unit-unknown"
    warp = read_lsst_warp(path, calibration_scale=2.0)
    np.testing.assert_array_equal(warp.image, 2 * _warp().image)
    np.testing.assert_array_equal(warp.variance, 4 * _warp().variance)


def _shift_ltv(hdus):
    hdus["IMAGE"].header["LTV1"] += 1


def _half_pixel(hdus):
    hdus["IMAGE"].header["CRVAL2A"] += 0.5


def _no_xy0(hdus):
    del hdus["IMAGE"].header["CRVAL1A"]


def _no_wcs(hdus):
    for key in ("CTYPE1", "CTYPE2"):
        del hdus["IMAGE"].header[key]


def _drop(name):
    def change(hdus):
        del hdus[name]

    return change


def _no_nodata_plane(hdus):
    del hdus["MASK"].header["MP_NO_DATA"]


def _small_variance(hdus):
    hdus["VARIANCE"].data = hdus["VARIANCE"].data[1:]


def _cube(hdus):
    hdus["IMAGE"].data = hdus["IMAGE"].data[np.newaxis]


def _integer_image(hdus):
    hdus["IMAGE"].data = np.zeros(BOX.shape, np.int16)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_shift_ltv, "xy0-mismatch"),
        (_half_pixel, "xy0-mismatch"),
        (_no_xy0, "xy0-missing"),
        (_no_wcs, "wcs-missing"),
        (_drop("MASK"), "plane-missing"),
        (_drop("VARIANCE"), "plane-missing"),
        (_no_nodata_plane, "mask-plane-missing"),
        (_small_variance, "plane-shape"),
        (_cube, "plane-shape"),
        (_integer_image, "plane-dtype"),
    ],
)
def test_bad_headers_are_refused(path, change, code):
    _edit(path, change)
    assert _code(read_lsst_header, path) == code
    assert _code(read_lsst_warp, path) == code


def test_no_usable_pixel(path):
    def change(hdus):
        hdus["IMAGE"].data[:] = np.nan

    _edit(path, change)
    assert _code(read_lsst_warp, path) == "no-data"


def test_missing_file_and_directory(tmp_path):
    assert _code(read_lsst_header, tmp_path / "none.fits") == "path-unreadable"
    assert _code(read_lsst_header, tmp_path) == "path-unreadable"


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"\x1f\x8bnot really gzip", b"SIMPLE"])
def test_not_fits(tmp_path, content):
    (tmp_path / "bad.fits").write_bytes(content)
    assert _code(read_lsst_header, tmp_path / "bad.fits") == "fits-unreadable"


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.5, 0.7, 0.999])
def test_truncated(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    assert _code(read_lsst_header, path) == "fits-truncated"
    assert _code(read_lsst_warp, path) == "fits-truncated"


def test_bytes_after_the_end(path):
    path.write_bytes(path.read_bytes() + b"x" * 100)
    assert _code(read_lsst_header, path) == "fits-truncated"


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_flipped_bit_is_found(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    assert _code(read_lsst_warp, path) == "fits-checksum"


def test_pixel_limit(path):
    assert _code(read_lsst_header, path, max_pixels=1000) == "too-large"


@pytest.mark.parametrize("compressed", [False, True])
def test_forged_size_is_refused_before_pixels_are_touched(tmp_path, compressed):
    path = tmp_path / "forged.fits"
    plane = np.zeros((50, 50), np.float32)
    kind = fits.CompImageHDU if compressed else fits.ImageHDU
    fits.HDUList([fits.PrimaryHDU(), kind(plane, name="IMAGE")]).writeto(path)
    content = path.read_bytes()
    for key in ("ZNAXIS1", "ZNAXIS2") if compressed else ("NAXIS1", "NAXIS2"):
        card = f"{key:8}= {50:>20}".encode()
        assert card in content
        content = content.replace(card, f"{key:8}= {200_000:>20}".encode())
    path.write_bytes(content)
    assert _code(read_lsst_header, path) == "too-large"


def test_open_checked_passes_other_files(tmp_path):
    fits.PrimaryHDU(np.arange(12.0).reshape(3, 4)).writeto(tmp_path / "plain.fits")
    with open_checked(tmp_path / "plain.fits") as hdus:
        assert hdus[0].data.sum() == 66.0


DATA = Path(__file__).parents[2].parent / "shared" / "data" / "sdss_stripe82_fpC"


@pytest.mark.skipif(not DATA.is_dir(), reason="the survey images are not here")
@pytest.mark.parametrize("name", ["fpC-004192-r4-0300.fits", "mask-004192-r4-0300.fits.gz"])
def test_open_checked_on_survey_files(name):
    with open_checked(DATA / name) as hdus:
        assert np.isfinite(np.asarray(hdus[-1].data)).any()


def test_compressed_planes_come_back_bit_by_bit(tmp_path):
    from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract

    warps = {}
    for compressed in (False, True):
        config = SimulationConfig(
            visits=1, patches=(1, 1), patch_size=150, border=0, compressed=compressed
        )
        made = simulate_tract(tmp_path / str(compressed), config)
        (path,) = made.warps_dir.glob("*.fits")
        warps[compressed] = read_lsst_warp(path)
    for name in ("image", "variance", "mask"):
        plain, packed = (getattr(warps[c], name) for c in (False, True))
        assert plain.tobytes() == packed.tobytes()
