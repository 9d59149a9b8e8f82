import numpy as np
import pytest
from astropy.io import fits

from bgmatch_dask.config import TractConfig
from bgmatch_dask.maskplanes import MASK_PLANES, NO_DATA
from bgmatch_dask.warps.catalogue import scan_inputs
from bgmatch_dask.warps.profile import Label, MaskSource, Profile
from bgmatch_dask.warps.resample import resample_unit
from bgmatch_dask.warps.source import read_unit
from bgmatch_dask.warps.tract import lay_out
from tests.warps.fits_images import CENTRE, make_wcs, write_image

SHAPE = (120, 140)
SAT = 1 << MASK_PLANES["SAT"]
PROFILE = Profile(
    name="test",
    layout="image",
    unit="adu",
    visit=Label(file_name=r"^([a-z]+)"),
    saturation={"header": "SATURATE"},
)
ROWS, COLUMNS = np.indices(SHAPE).astype(np.float64)


def _profile(**changes):
    return Profile.model_validate(PROFILE.model_dump() | changes)


def _noise(seed=1, level=100.0):
    return np.random.default_rng(seed).normal(level, 2.0, SHAPE)


def _warps(folder, profile=PROFILE, **config):
    """Return geometry, warps and rejections of all units of a folder."""
    files = scan_inputs([str(folder)], profile, max_pixels=10**6).files
    layout = lay_out(files, TractConfig(**config))
    units = {}
    rejected = []
    for visit, patch, members in layout.units:
        warp, bad = read_unit(members, profile, layout.geometry, patch, max_pixels=10**6)
        units[visit, patch] = warp
        rejected += bad
    return layout.geometry, units, rejected


def _single(folder, profile=PROFILE, **config):
    geometry, units, rejected = _warps(folder, profile, **config)
    assert rejected == []
    (warp,) = units.values()
    return geometry, warp


def _star(x, y, flux=1e5, sigma=2.0):
    r2 = (COLUMNS - x) ** 2 + (ROWS - y) ** 2
    return flux * np.exp(-r2 / (2 * sigma**2)) / (2 * np.pi * sigma**2)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.3])
def test_surface_brightness_and_flux_are_kept(tmp_path, scale):
    """Pixels of another size hold another flux, in the ratio of their areas."""
    image = _noise() + _star(70.0, 60.0)
    write_image(tmp_path / "a.fits", image, make_wcs(SHAPE))
    _, warp = _single(tmp_path, pixel_scale=scale)
    assert np.nanmedian(warp.image) == pytest.approx(100.0 * scale**2, rel=2e-3)
    flux = np.nansum(warp.image - np.nanmedian(warp.image))
    assert flux == pytest.approx(1e5, rel=0.02)


def test_pixels_of_surface_brightness_are_not_scaled(tmp_path):
    write_image(tmp_path / "a.fits", _noise(), make_wcs(SHAPE))
    _, warp = _single(tmp_path, _profile(flux_per_pixel=False), pixel_scale=0.5)
    assert np.nanmedian(warp.image) == pytest.approx(100.0, rel=2e-3)


@pytest.mark.parametrize("angle", [0.0, 33.0, 180.0])
@pytest.mark.parametrize("scale", [0.7, 1.0])
def test_a_star_is_where_it_was_on_the_sky(tmp_path, angle, scale):
    wcs = make_wcs(SHAPE, angle=angle)
    x, y = 80.3, 52.8
    write_image(tmp_path / "a.fits", _noise() + _star(x, y), wcs)
    geometry, warp = _single(tmp_path, pixel_scale=scale)
    expected = np.array(geometry.wcs().wcs_world2pix(*wcs.wcs_pix2world(x, y, 0), 0))
    ys, xs = np.indices(warp.image.shape)
    near = np.hypot(xs + warp.box.x0 - expected[0], ys + warp.box.y0 - expected[1]) < 12 / scale
    light = np.where(near, warp.image - np.nanmedian(warp.image), 0.0).astype(float)
    found = np.array([(xs * light).sum(), (ys * light).sum()]) / light.sum()
    found += [warp.box.x0, warp.box.y0]
    assert np.abs(found - expected).max() < 0.1


def test_the_same_grid_gives_the_same_pixels(tmp_path):
    image = _noise().astype(np.float32)
    write_image(tmp_path / "a.fits", image, make_wcs(SHAPE))
    geometry, warp = _single(
        tmp_path, ra=CENTRE[0], dec=CENTRE[1], width=140, height=120, patch_inner=(140, 120)
    )
    assert warp.box.shape == SHAPE
    inner = np.s_[1:-1, 1:-1]
    # North up: the columns run from east to west in both.
    np.testing.assert_allclose(warp.image[inner], image[inner], rtol=1e-5)
    assert geometry.patches.n_patches == 1


def test_a_plane_stays_a_plane(tmp_path):
    plane = 10 + 0.3 * COLUMNS - 0.2 * ROWS + 1e-6 * _noise(level=0.0)
    wcs = make_wcs(SHAPE, angle=25.0)
    write_image(tmp_path / "a.fits", plane, wcs)
    geometry, warp = _single(tmp_path)
    ys, xs = np.nonzero(np.isfinite(warp.image))
    sky = geometry.wcs(warp.box).wcs_pix2world(xs, ys, 0)
    x, y = wcs.wcs_world2pix(*sky, 0)
    scale = warp.image[ys, xs] / (10 + 0.3 * x - 0.2 * y)
    inside = (x > 0) & (x < SHAPE[1] - 1) & (y > 0) & (y < SHAPE[0] - 1)
    deviation = np.abs(scale - 1) * warp.image[ys, xs]
    assert deviation[inside].max() < 1e-4
    # In the outer half of the edge pixels the value is that of the edge.
    assert deviation.max() < 0.5 * (0.3 + 0.2)


def test_what_is_no_data_stays_so(tmp_path):
    image = _noise()
    image[40:60, 50:70] = np.nan
    image[5, 5], image[7, 9] = np.inf, 1e300
    write_image(tmp_path / "a.fits", image, make_wcs(SHAPE, angle=10.0))
    geometry, warp = _single(tmp_path)
    empty = ~np.isfinite(warp.image)
    np.testing.assert_array_equal(empty, (warp.mask & NO_DATA) != 0)
    np.testing.assert_array_equal(empty, np.isinf(warp.variance))
    assert np.isnan(warp.image[empty]).all()
    # The hole comes back with its area, and the rim that interpolation would need.
    ys, xs = np.nonzero(empty)
    sky = geometry.wcs(warp.box).wcs_pix2world(xs, ys, 0)
    x, y = make_wcs(SHAPE, angle=10.0).wcs_world2pix(*sky, 0)
    inside = (x > 2) & (x < SHAPE[1] - 3) & (y > 12) & (y < SHAPE[0] - 3)
    assert inside.sum() == pytest.approx(21 * 21, rel=0.06)


def test_planes_spread_to_the_pixels_that_use_them(tmp_path):
    image = _noise()
    image[60, 70] = 5e4
    write_image(tmp_path / "a.fits", image, make_wcs(SHAPE, angle=20.0), SATURATE=4e4)
    _, warp = _single(tmp_path)
    saturated = (warp.mask & SAT) != 0
    touched = np.nan_to_num(warp.image, nan=100.0) > 140.0
    assert touched.any()
    assert saturated[touched].all()
    assert 2 <= saturated.sum() <= 6


def test_a_bit_mask_inside_the_file_is_named(tmp_path):
    bits = np.zeros(SHAPE, np.int16)
    bits[30:50, 30:50], bits[80:90, 80:90] = 4, 1
    hdu = fits.PrimaryHDU(_noise(), make_wcs(SHAPE).to_header())
    fits.HDUList([hdu, fits.ImageHDU(bits, name="DQ")]).writeto(tmp_path / "a.fits")
    profile = _profile(mask={"hdu": "DQ", "planes": {"CR": 2}})
    _, warp = _single(tmp_path, profile)
    marked = (warp.mask & (1 << MASK_PLANES["CR"])) != 0
    assert 20 * 20 <= marked.sum() <= 22 * 22
    assert set(np.unique(warp.mask)) == {0, NO_DATA, 1 << MASK_PLANES["CR"]}


def test_a_companion_mask_is_used_where_there_is_one(tmp_path):
    images = tmp_path / "in"
    images.mkdir()
    write_image(images / "a-im.fits", _noise(1), make_wcs(SHAPE))
    write_image(images / "b-im.fits", _noise(2), make_wcs(SHAPE))
    bits = np.zeros(SHAPE, np.int32)
    bits[30:50, 30:50] = 1
    write_image(images / "a-mask.fits", bits, None)
    mask = {"companion": {"find": "-im", "name": "-mask"}, "planes": {"SAT": 0}}
    _, units, rejected = _warps(images, _profile(files="-im", mask=mask))
    assert rejected == []
    assert (units["a", 0].mask & SAT).any()
    assert not (units["b", 0].mask & SAT).any()


@pytest.mark.parametrize("shape", [(10, 10), (140, 120)])
def test_a_mask_of_another_shape_rejects_the_image(tmp_path, shape):
    write_image(tmp_path / "a-im.fits", _noise(), make_wcs(SHAPE))
    write_image(tmp_path / "a-mask.fits", np.zeros(shape, np.int32), None)
    mask = {"companion": {"find": "-im", "name": "-mask"}, "planes": {"SAT": 0}}
    _, units, rejected = _warps(tmp_path, _profile(files="-im", mask=mask))
    assert list(units.values()) == [None]
    assert [r.code for r in rejected] == ["plane-shape"]


@pytest.mark.parametrize(
    ("mask", "code"),
    [
        ({"companion": {"find": "-im", "name": "-mask"}, "planes": {"SAT": 0}}, "plane-dtype"),
        ({"hdu": "DQ", "planes": {"SAT": 0}}, "fits-unreadable"),
        ({"hdu": 1, "planes": {"SAT": 0}}, "fits-unreadable"),
        ({"hdu": 0, "planes": {"SAT": 0}}, "plane-dtype"),
    ],
)
def test_a_mask_that_is_none_rejects_the_image(tmp_path, mask, code):
    write_image(tmp_path / "a-im.fits", _noise(), make_wcs(SHAPE))
    write_image(tmp_path / "a-mask.fits", np.zeros(SHAPE, np.float32), None)
    _, units, rejected = _warps(tmp_path, _profile(files="-im", mask=mask))
    assert list(units.values()) == [None]
    assert [r.code for r in rejected] == [code]


def test_several_files_of_one_visit_are_put_together(tmp_path):
    """Where they overlap the first one wins, pixel by pixel, with its own variance."""
    rng = np.random.default_rng(4)
    first = rng.normal(100.0, 2.0, SHAPE)
    first[:, 60:80] = np.nan
    write_image(tmp_path / "a1.fits", first, make_wcs(SHAPE))
    shifted = (CENTRE[0] - 50 / 3600, CENTRE[1])
    write_image(
        tmp_path / "a2.fits", rng.normal(500.0, 6.0, SHAPE), make_wcs(SHAPE, centre=shifted)
    )
    _, warp = _single(tmp_path)
    levels = warp.image > 300
    full = np.isfinite(warp.image)
    # 140 columns of the first without 20 + rim, and the second on the gap and beyond.
    assert full.sum() == pytest.approx(190 * 120, rel=0.03)
    assert levels.sum() == pytest.approx((50 + 20) * 120, rel=0.05)
    np.testing.assert_allclose(np.sqrt(warp.variance[full & levels]), 6.0, rtol=0.05)
    np.testing.assert_allclose(np.sqrt(warp.variance[full & ~levels]), 2.0, rtol=0.05)


def test_a_bad_file_of_a_visit_leaves_the_others(tmp_path):
    write_image(tmp_path / "a1.fits", _noise(), make_wcs(SHAPE))
    write_image(tmp_path / "a2.fits", np.full(SHAPE, np.nan), make_wcs(SHAPE, angle=5.0))
    _, units, rejected = _warps(tmp_path)
    assert [(r.code, r.source) for r in rejected] == [("no-data", str(tmp_path / "a2.fits"))]
    assert np.isfinite(units["a", 0].image).any()


def test_a_zero_point_that_is_missing_rejects_the_image(tmp_path):
    write_image(tmp_path / "a.fits", _noise(), make_wcs(SHAPE))
    write_image(tmp_path / "b.fits", _noise(), make_wcs(SHAPE), MAGZP=23.5)
    profile = _profile(zero_point={"header": "MAGZP", "reference": 21.0})
    _, units, rejected = _warps(tmp_path, profile)
    assert [(r.code, r.source) for r in rejected] == [
        ("zero-point-missing", str(tmp_path / "a.fits"))
    ]
    assert units["a", 0] is None
    assert np.nanmedian(units["b", 0].image) == pytest.approx(10.0, rel=2e-3)


def test_a_soft_bias_is_taken_off_before_scaling(tmp_path):
    write_image(tmp_path / "a.fits", _noise() + 1000, make_wcs(SHAPE), SOFTBIAS=1000, Z=20.0)
    profile = _profile(
        subtract={"header": "SOFTBIAS"}, zero_point={"header": "Z", "reference": 22.5}
    )
    _, warp = _single(tmp_path, profile)
    assert np.nanmedian(warp.image) == pytest.approx(1000.0, rel=2e-3)


def test_a_level_that_is_no_number_rejects_the_image(tmp_path):
    write_image(tmp_path / "a.fits", _noise(), make_wcs(SHAPE), SATURATE="high")
    _, _, rejected = _warps(tmp_path)
    assert [r.code for r in rejected] == ["header-number"]


def test_a_file_that_changed_since_the_scan_is_rejected_not_fatal(tmp_path):
    path = write_image(tmp_path / "a.fits", _noise(), make_wcs(SHAPE))
    files = scan_inputs([str(tmp_path)], PROFILE, max_pixels=10**6).files
    geometry = lay_out(files, TractConfig()).geometry
    path.write_bytes(path.read_bytes()[:20000])
    warp, rejected = resample_unit(files, PROFILE, geometry, 0, max_pixels=10**6)
    assert (warp, [r.code for r in rejected]) == (None, ["fits-truncated"])
    path.unlink()
    warp, rejected = resample_unit(files, PROFILE, geometry, 0, max_pixels=10**6)
    assert (warp, [r.code for r in rejected]) == (None, ["path-unreadable"])


def test_a_flipped_bit_in_an_image_with_checksums_is_found(tmp_path):
    path = write_image(tmp_path / "a.fits", _noise(), make_wcs(SHAPE))
    data = bytearray(path.read_bytes())
    data[40000] ^= 4
    path.write_bytes(data)
    _, _, rejected = _warps(tmp_path)
    assert [r.code for r in rejected] == ["fits-checksum"]
    _, _, rejected = _warps(tmp_path, _profile(checksum=False))
    assert rejected == []


def test_patches_agree_where_they_overlap(tmp_path):
    write_image(tmp_path / "a.fits", _noise() + _star(70, 60), make_wcs(SHAPE, angle=12.0))
    geometry, units, _ = _warps(tmp_path, patch_inner=60, border=10)
    patches = geometry.patches
    first, second = units["a", 0], units["a", 1]
    common = patches.outer_box(0).intersect(patches.outer_box(1))
    for name in ("image", "variance", "mask"):
        np.testing.assert_allclose(
            getattr(first.crop(common), name), getattr(second.crop(common), name), rtol=1e-5
        )


def test_the_same_files_give_the_same_bytes(tmp_path):
    write_image(tmp_path / "a.fits", _noise(), make_wcs(SHAPE, angle=12.0))
    one, two = (_single(tmp_path)[1] for _ in range(2))
    assert one.image.tobytes() == two.image.tobytes()
    assert one.mask.tobytes() == two.mask.tobytes()


def test_integer_images_with_a_blank_value(tmp_path):
    data = np.round(_noise() * 10).astype(np.int16)
    data[50:70, 50:70] = -32768
    hdu = fits.PrimaryHDU(data, make_wcs(SHAPE).to_header())
    hdu.header["BLANK"] = -32768
    hdu.writeto(tmp_path / "a.fits")
    _, warp = _single(tmp_path)
    assert np.nanmin(warp.image) > 0
    assert (~np.isfinite(warp.image)).sum() >= 400


def test_companions_are_declared_in_the_profile():
    assert _profile(mask={"hdu": 1}).mask == MaskSource(hdu=1)
