import numpy as np
import pytest

from bgmatch_dask.config import TractConfig
from bgmatch_dask.errors import GeometryError
from bgmatch_dask.geometry import Box, PatchGrid
from bgmatch_dask.warps.catalogue import InputFile, scan_inputs
from bgmatch_dask.warps.profile import load_profile
from bgmatch_dask.warps.tract import footprint_box, lay_out, natural_key
from tests.warps.fits_images import CENTRE, make_wcs, write_image

SHAPE = (40, 60)
CARDS = tuple((c.keyword, c.value) for c in make_wcs((100, 100)).to_header().cards)
GRID = PatchGrid(0, 0, 100, 100, 10, 3, 2)


def _images(folder, *places, **kwargs):
    for number, (dx, dy) in enumerate(places):
        centre = (CENTRE[0] + dx / np.cos(np.radians(CENTRE[1])), CENTRE[1] + dy)
        write_image(
            folder / f"v{number}.fits",
            np.ones(SHAPE, "f4"),
            make_wcs(SHAPE, centre=centre, **kwargs),
        )
    return scan_inputs([str(folder)], load_profile("generic"), max_pixels=10**6).files


def _warp(visit, patch, *, cards=CARDS, box=None, path=""):
    box = box or GRID.outer_box(patch)
    name = path or f"{visit}-{patch}.fits"
    return InputFile(name, visit, "r", 1, 1, box.shape, box, cards)


WARPS = [_warp(visit, p) for p in range(6) for visit in ("10", "9", "x")]


def test_labels_are_sorted_as_people_do():
    labels = ["b", "10", "9", "a10", "007", "7"]
    assert sorted(labels, key=natural_key) == ["007", "7", "9", "10", "a10", "b"]


def test_nothing_lays_out_no_tract():
    with pytest.raises(GeometryError) as caught:
        lay_out([], TractConfig())
    assert caught.value.code == "tract-undefined"


def test_warps_settle_their_tract():
    layout = lay_out(WARPS, TractConfig(label="9813"))
    assert layout.geometry.patches == GRID
    assert (layout.geometry.tract, layout.geometry.band) == ("9813", "r")
    assert layout.geometry.wcs_cards == CARDS
    assert layout.visits == ("9", "10", "x")
    assert [(v, p) for v, p, _ in layout.units] == [
        (visit, p) for p in range(6) for visit in ("9", "10", "x")
    ]
    assert layout.rejected == ()
    for visit, patch, files in layout.units:
        assert [f.path for f in files] == [f"{visit}-{patch}.fits"]


def test_the_order_of_the_files_does_not_matter():
    assert lay_out(WARPS[::-1], TractConfig()) == lay_out(WARPS, TractConfig())


def test_a_warp_of_another_tract_is_rejected():
    other = tuple((k, 10.0 if k == "CRVAL1" else v) for k, v in CARDS)
    layout = lay_out([*WARPS, _warp("8", 0, cards=other, path="far.fits")], TractConfig())
    assert [(r.code, r.source) for r in layout.rejected] == [("wcs-mismatch", "far.fits")]
    assert layout.geometry.patches == GRID


def test_the_last_digits_of_a_wcs_do_not_matter():
    other = tuple((k, v * (1 + 1e-13) if isinstance(v, float) else v) for k, v in CARDS)
    assert lay_out([*WARPS, _warp("8", 0, cards=other)], TractConfig()).rejected == ()


def test_images_are_covered_by_a_tract_with_north_up(tmp_path):
    files = _images(tmp_path, (0, 0), (0.01, 0.005), angle=20.0)
    geometry = lay_out(files, TractConfig()).geometry
    box = geometry.patches.tract_box
    for file in files:
        assert box.contains(footprint_box(file, geometry.wcs()))
    wcs = geometry.wcs()
    np.testing.assert_allclose(wcs.wcs.cdelt * 3600, [-1, 1], rtol=1e-6)
    np.testing.assert_allclose(wcs.wcs.crpix, [(box.width + 1) / 2, (box.height + 1) / 2])
    assert geometry.patches.border == 0


def test_a_tract_by_hand(tmp_path):
    files = _images(tmp_path, (0, 0), (0.02, 0))
    config = TractConfig(
        ra=CENTRE[0], dec=CENTRE[1], width=150, height=70, patch_inner=(50, 32), border=4,
        pixel_scale=0.5,
    )  # fmt: skip
    layout = lay_out(files, config)
    assert layout.geometry.patches == PatchGrid(0, 0, 50, 32, 4, 3, 3)
    wcs = layout.geometry.wcs()
    # The centre of the tract box (150 x 96 pixels) is the position asked for.
    np.testing.assert_allclose(wcs.wcs_world2pix(*CENTRE, 0), (74.5, 47.5), atol=1e-6)
    np.testing.assert_allclose(wcs.wcs.cdelt[1] * 3600, 0.5)
    # The second image lies 0.02 deg = 144 pixels to the east of the centre.
    assert [(r.code, r.source) for r in layout.rejected] == [("outside-tract", files[1].path)]
    assert layout.visits == ("v0",)


def test_an_image_from_another_part_of_the_sky_is_rejected(tmp_path):
    files = _images(tmp_path, (0, 0), (0.01, 0), (40.0, -5.0))
    layout = lay_out(files, TractConfig())
    assert [(r.code, r.source) for r in layout.rejected] == [("outside-tract", files[2].path)]
    assert layout.geometry.patches.tract_box.width < 200
    assert layout.visits == ("v0", "v1")


def test_no_image_near_the_given_centre_lays_out_no_tract(tmp_path):
    with pytest.raises(GeometryError, match=r"tract\.ra") as caught:
        lay_out(_images(tmp_path, (0, 0)), TractConfig(ra=10.0, dec=-60.0))
    assert caught.value.code == "tract-undefined"


@pytest.mark.parametrize("centre", [(0.0, 10.0), (359.9999, -30.0), (120.0, 89.9)])
def test_the_meridian_and_the_pole_are_no_edge(tmp_path, centre):
    for number, dx in enumerate((-0.01, 0.01)):
        ra = (centre[0] + dx / np.cos(np.radians(centre[1]))) % 360
        wcs = make_wcs(SHAPE, centre=(ra, centre[1]))
        write_image(tmp_path / f"v{number}.fits", np.ones(SHAPE, "f4"), wcs)
    files = scan_inputs([str(tmp_path)], load_profile("generic"), max_pixels=10**6).files
    layout = lay_out(files, TractConfig())
    assert layout.rejected == ()
    assert layout.geometry.patches.tract_box.width < 256
    assert len(layout.visits) == 2


def test_units_are_the_patches_that_an_image_touches(tmp_path):
    files = _images(tmp_path, (0, 0), (0.012, 0.01), angle=45.0)
    layout = lay_out(files, TractConfig(patch_inner=24, border=3))
    patches, wcs = layout.geometry.patches, layout.geometry.wcs()
    for file in files:
        box = footprint_box(file, wcs)
        brute = [
            p for p in range(patches.n_patches) if not patches.outer_box(p).intersect(box).empty
        ]
        assert [p for v, p, _ in layout.units if v == file.visit] == brute


def test_a_footprint_on_the_other_side_of_the_sky_is_empty(tmp_path):
    (file,) = _images(tmp_path, (0, 0))
    assert footprint_box(file, make_wcs(SHAPE, centre=(330.1, -2.2))) == Box(0, 0, 0, 0)
