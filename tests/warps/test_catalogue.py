import shutil

import numpy as np
import pytest
from astropy.io import fits

from bgmatch_dask.errors import InputError
from bgmatch_dask.warps.catalogue import image_hdu, scan_inputs
from bgmatch_dask.warps.profile import load_profile
from tests.warps.fits_images import CENTRE, make_wcs, write_image

GENERIC = load_profile("generic")
SHAPE = (40, 60)


def _image(path, seed=0, **kwargs):
    data = np.random.default_rng(seed).normal(100, 3, SHAPE).astype(np.float32)
    return write_image(path, data, make_wcs(SHAPE, **kwargs))


def _scan(*paths, profile=GENERIC, max_pixels=10**6):
    return scan_inputs([str(p) for p in paths], profile, max_pixels=max_pixels)


def _only_rejection(*paths, **kwargs):
    catalogue = _scan(*paths, **kwargs)
    assert catalogue.files == ()
    (rejected,) = catalogue.rejected
    assert rejected.source == str(paths[0])
    assert rejected.detail
    return rejected.code


def test_an_image_is_described_by_its_header(tmp_path):
    path = _image(tmp_path / "a.fits", scale=0.4, angle=30.0)
    (file,) = _scan(path).files
    assert (file.path, file.visit, file.shape, file.box) == (str(path), "a", SHAPE, None)
    assert file.size == path.stat().st_size
    np.testing.assert_allclose(file.pixel_scale, 0.4, rtol=1e-9)
    ra, dec = np.array(file.corners).T
    np.testing.assert_allclose([ra.mean(), dec.mean()], CENTRE, atol=1e-6)
    # The edge of the outermost pixels, not their centres.
    half = 0.5 * 0.4 / 3600 * np.hypot(*SHAPE)
    distance = np.hypot((ra - CENTRE[0]) * np.cos(np.radians(CENTRE[1])), dec - CENTRE[1])
    np.testing.assert_allclose(distance.max(), half, rtol=1e-4)


def test_folders_patterns_and_repetitions_give_each_file_once(tmp_path):
    for name in ("b", "a", "ä ö"):
        _image(tmp_path / f"{name}.fits", scale=1 + 0.01 * len(name), angle=len(name.encode()))
    _image(tmp_path / "a.fits", angle=50)
    (tmp_path / "notes.txt").write_text("no image")
    catalogue = _scan(tmp_path, tmp_path / "*.fits", tmp_path / "a.fits")
    assert [f.visit for f in catalogue.files] == ["a", "b", "ä ö"]
    assert catalogue.rejected == ()


def test_a_name_with_magic_characters_is_that_file(tmp_path):
    path = _image(tmp_path / "a[1].fits")
    assert [f.visit for f in _scan(path).files] == ["a[1]"]


def test_files_that_the_profile_does_not_read_are_counted(tmp_path):
    _image(tmp_path / "2mass-atlas-000206s-j0140257.fits")
    (tmp_path / "x.fits.md5").write_text("1")
    catalogue = _scan(tmp_path, profile=load_profile("2mass"))
    assert (len(catalogue.files), catalogue.passed_over) == (1, 1)
    assert catalogue.rejected == ()


def test_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="generic") as caught:
        _scan(tmp_path)
    assert caught.value.code == "inputs-empty"


def test_a_copy_is_dropped_in_silence(tmp_path):
    path = _image(tmp_path / "a.fits")
    (tmp_path / "copy").mkdir()
    shutil.copy(path, tmp_path / "copy" / "a.fits")
    catalogue = _scan(path, tmp_path / "copy")
    assert [f.path for f in catalogue.files] == [str(path)]
    assert catalogue.rejected == ()


def test_another_file_of_the_same_visit_and_place_is_rejected(tmp_path):
    path = _image(tmp_path / "a.fits", seed=1)
    (tmp_path / "other").mkdir()
    other = _image(tmp_path / "other" / "a.fits", seed=2)
    catalogue = _scan(path, other)
    assert [f.path for f in catalogue.files] == [str(path)]
    (rejected,) = catalogue.rejected
    assert (rejected.code, rejected.source) == ("duplicate-unit", str(other))
    assert str(path) in rejected.detail


def test_an_image_without_wcs_is_rejected(tmp_path):
    path = write_image(tmp_path / "a.fits", np.ones(SHAPE, np.float32), None)
    assert _only_rejection(path) == "wcs-missing"


@pytest.mark.parametrize(
    "cards",
    [
        {"CD1_1": 0.0, "CD1_2": 0.0},
        {"CD1_1": 0.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.0},
        {"CTYPE1": "RA---XXX", "CTYPE2": "DEC--XXX"},
        {"CTYPE1": "RA---TAN", "CTYPE2": "RA---TAN"},
        {"CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN"},
        {"CRVAL1": "east"},
        {"CRVAL2": 1e300},
        {"CD1_1": 1e300, "CD2_2": 1e300},
        {"CUNIT1": "furlong"},
        {"RADESYS": "NOWHERE"},
    ],
)
def test_an_image_with_a_broken_wcs_is_rejected(tmp_path, cards):
    header = make_wcs(SHAPE).to_header()
    for key in ("PC1_1", "PC1_2", "PC2_1", "PC2_2", "CDELT1", "CDELT2"):
        header.remove(key, ignore_missing=True)
    header.update({"CD1_1": -3e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 3e-4})
    header.update(cards)
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.ones(SHAPE, np.float32), header).writeto(path)
    assert _only_rejection(path).startswith("wcs-")


def test_a_visit_that_cannot_be_told_is_rejected(tmp_path):
    path = _image(tmp_path / "a.fits")
    profile = GENERIC.model_copy(update={"visit": type(GENERIC.visit)(header=("EXPNUM",))})
    assert _only_rejection(path, profile=profile) == "visit-missing"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("gone.fits", None, "path-unreadable"),
        ("empty.fits", b"", "fits-truncated"),
        ("text.fits", b"not a FITS file" * 300, "fits-unreadable"),
    ],
)
def test_files_that_are_none_are_rejected(tmp_path, name, content, code):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert _only_rejection(path) == code


def test_a_folder_named_like_a_file_is_rejected(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.fits").mkdir()
    (rejected,) = _scan(tmp_path / "in").rejected
    assert rejected.code == "path-unreadable"


def test_a_truncated_file_is_rejected_and_the_others_are_kept(tmp_path):
    good, bad = _image(tmp_path / "a.fits"), _image(tmp_path / "b.fits", angle=3.0)
    bad.write_bytes(bad.read_bytes()[:-2880])
    catalogue = _scan(tmp_path)
    assert [f.path for f in catalogue.files] == [str(good)]
    assert [(r.code, r.source) for r in catalogue.rejected] == [("fits-truncated", str(bad))]


def test_an_image_above_the_limit_is_rejected(tmp_path):
    assert _only_rejection(_image(tmp_path / "a.fits"), max_pixels=100) == "too-large"


def test_a_file_without_an_image_is_rejected(tmp_path):
    path = tmp_path / "a.fits"
    table = fits.BinTableHDU.from_columns([fits.Column("x", "J", array=[1, 2])])
    fits.HDUList([fits.PrimaryHDU(), table, fits.ImageHDU(np.ones(5))]).writeto(path)
    assert _only_rejection(path) == "plane-missing"
    chosen = GENERIC.model_copy(update={"hdu": 1})
    assert _only_rejection(path, profile=chosen) == "plane-missing"
    beyond = GENERIC.model_copy(update={"hdu": "SCI"})
    assert _only_rejection(path, profile=beyond) == "fits-unreadable"


def test_the_image_is_the_first_with_two_axes_or_the_chosen_one():
    flat = fits.ImageHDU(np.ones((4, 5)), name="SCI")
    other = fits.ImageHDU(np.ones((6, 7)), name="WHT")
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((2, 3, 4))), flat, other])
    assert image_hdu(hdus, None) is flat
    assert image_hdu(hdus, "WHT") is other
    assert image_hdu(hdus, 3) is other
    with pytest.raises(InputError):
        image_hdu(hdus, 1)


def _labelled(tmp_path, label):
    data = np.ones(SHAPE, np.float32)
    path = write_image(tmp_path / "a.fits", data, make_wcs(SHAPE), EXPNUM=label)
    profile = GENERIC.model_copy(update={"visit": type(GENERIC.visit)(header=("EXPNUM",))})
    return _scan(path, profile=profile)


@pytest.mark.parametrize("label", ["[red]<script>", "..a", "a b", "x" * 64])
def test_a_hostile_label_is_plain_text(tmp_path, label):
    (file,) = _labelled(tmp_path, label).files
    assert file.visit == label


@pytest.mark.parametrize("label", ["../../x", "..", "a\\b", "x" * 65])
def test_a_label_that_could_lead_a_path_astray_is_rejected(tmp_path, label):
    assert [r.code for r in _labelled(tmp_path, label).rejected] == ["label-unusable"]
