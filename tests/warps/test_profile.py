import numpy as np
import pytest
from astropy.io import fits

from bgmatch_dask.errors import ConfigError, InputError
from bgmatch_dask.warps.profile import (
    Companion,
    HeaderNumber,
    Label,
    Profile,
    ZeroPoint,
    load_profile,
    profile_names,
)


def _refused(name):
    with pytest.raises(ConfigError) as caught:
        load_profile(str(name))
    return caught.value.code


@pytest.mark.parametrize("name", profile_names())
def test_shipped_profiles_load_and_say_what_they_are_for(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.description
    assert profile.unit


def test_shipped_names():
    assert profile_names() == ("2mass", "generic", "lsst", "sdss")


@pytest.mark.parametrize(
    ("profile", "file_name", "visit"),
    [
        ("2mass", "2mass-atlas-000206s-j0140257.fits", "000206s-j0140257"),
        ("sdss", "fpC-004263-r4-0308.fit.gz", "004263-r4-0308"),
        ("generic", "my image.v2.fits.fz", "my image.v2"),
        ("generic", "a.fit", "a"),
        ("lsst", "deepCoadd_directWarp_v1214_p4.fits", "1214"),
    ],
)
def test_visits_by_file_name(profile, file_name, visit):
    assert load_profile(profile).visit.find({}, file_name) == visit


def test_a_profile_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("layout: image\nunit: adu\nvisit: {header: [EXPNUM]}\n", encoding="utf-8")
    profile = load_profile(str(path))
    assert profile.name == "mine"
    assert profile.visit.find({"EXPNUM": 17}, "x.fits") == "17"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- 1",
        "just text",
        "{",
        "layout: image\nunit: adu\n",
        "layout: cube\nunit: adu\nvisit: {}\n",
        "layout: image\nunit: adu\nvisit: {}\nwhatever: 1\n",
        "layout: image\nunit: adu\nvisit: {file_name: 'no group'}\n",
        "layout: image\nunit: adu\nvisit: {file_name: '(open'}\n",
        "layout: image\nunit: adu\nvisit: {}\nfiles: '*.fits'\n",
        "layout: image\nunit: adu\nvisit: {}\nmask: {planes: {SATT: 1}}\n",
        "layout: image\nunit: adu\nvisit: {}\nmask: {planes: {SAT: -1}}\n",
        "layout: image\nunit: adu\nvisit: {}\nmask: {companion: {find: '(', name: x}}\n",
        "layout: image\nunit: adu\nvisit: {}\nmask: {companion: {find: 'a', name: '\\2'}}\n",
        "layout: !!python/object/apply:os.getcwd []\n",
        "? [1]\n: 2\n",
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    assert _refused(path) == "profile-invalid"


def test_a_profile_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert _refused(path) == "profile-invalid"


@pytest.mark.parametrize("name", ["nope", "", ".", "x\0y", "a" * 5000, "../lsst", "/dev/null"])
def test_a_name_that_is_no_profile_is_refused(name):
    assert _refused(name) == "profile-unknown"


def test_labels_come_from_the_first_card_that_has_one():
    label = Label(header=("VISIT", "EXPID"), file_name=r"v(\d+)")
    header = fits.Header()
    header["VISIT"] = "  "
    header["EXPID"] = 12
    assert label.find(header, "v7.fits") == "12"
    header["VISIT"] = "a b"
    assert label.find(header, "v7.fits") == "a b"
    assert label.find({}, "v7.fits") == "7"
    assert label.find({}, "7.fits") is None


def test_a_card_without_a_value_is_no_label():
    header = fits.Header()
    header["VISIT"] = fits.card.Undefined()
    assert Label(header=("VISIT",)).find(header, "x") is None


def test_numbers_of_headers():
    number = HeaderNumber(header="LEVEL", value=3.0)
    assert number.find({}) == 3.0
    assert number.find({"LEVEL": 5}) == 5.0
    assert HeaderNumber().find({"LEVEL": 5}) is None


@pytest.mark.parametrize("value", ["high", fits.card.Undefined()])
def test_a_card_that_holds_no_number_is_refused(value):
    with pytest.raises(InputError) as caught:
        HeaderNumber(header="LEVEL").find({"LEVEL": value})
    assert caught.value.code == "header-number"


def test_scales_of_zero_points():
    assert ZeroPoint(header="MAGZP", reference=21.0).scale({"MAGZP": 21.0}) == 1.0
    # An image whose zero point is 2.5 mag deeper has 10 times the counts of the same source.
    scale = ZeroPoint(header="MAGZP", reference=21.0).scale({"MAGZP": 23.5})
    np.testing.assert_allclose(scale, 0.1)
    # 2000 counts at magnitude 20 are a zero point of 20 + 2.5 log10(2000).
    counts = ZeroPoint(header="FLUX20", counts_at=20.0, reference=20 + 2.5 * np.log10(2000))
    np.testing.assert_allclose(counts.scale({"FLUX20": 2000.0}), 1.0)
    np.testing.assert_allclose(counts.scale({"FLUX20": 1000.0}), 2.0)


@pytest.mark.parametrize("header", [{}, {"Z": "faint"}, {"Z": float("nan")}, {"Z": float("inf")}])
@pytest.mark.parametrize("counts_at", [None, 20.0])
def test_a_zero_point_that_is_missing_is_refused(header, counts_at):
    with pytest.raises(InputError) as caught:
        ZeroPoint(header="Z", counts_at=counts_at, reference=20.0).scale(header)
    assert caught.value.code == "zero-point-missing"


@pytest.mark.parametrize("counts", [0, -5.0])
def test_counts_that_have_no_magnitude_are_refused(counts):
    with pytest.raises(InputError):
        ZeroPoint(header="Z", counts_at=20.0, reference=20.0).scale({"Z": counts})


def test_the_companion_lies_beside_the_image(tmp_path):
    companion = load_profile("sdss").mask.companion
    image = tmp_path / "fpC-004263-r4-0308.fit.gz"
    assert companion.path_of(str(image)) == tmp_path / "mask-004263-r4-0308.fits.gz"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "x/../y", "..", "", "."])
def test_a_companion_never_leaves_the_folder_of_the_image(tmp_path, name):
    found = Companion(find="^.*$", name=name).path_of(str(tmp_path / "a.fits"))
    assert found is None or found.parent == tmp_path


def test_an_image_is_not_its_own_companion(tmp_path):
    companion = Companion(find="^im(.*)", name=r"mask\1")
    assert companion.path_of(str(tmp_path / "sky.fits")) is None


def test_files_that_a_profile_passes_over():
    profile = load_profile("sdss")
    assert profile.accepts("fpC-004263-r4-0308.fit.gz")
    assert not profile.accepts("mask-004263-r4-0308.fits.gz")
    assert Profile(name="all", layout="image", unit="adu", visit=Label()).accepts("anything")
