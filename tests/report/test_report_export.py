"""FITS files hold the right pixels at the right place, under names that stay in the folder."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from bgmatch_dask.background.offsets import render, render_flags, render_variance
from bgmatch_dask.errors import BgmatchError
from bgmatch_dask.pipeline.results import load_offset
from bgmatch_dask.report.export import export_fits
from bgmatch_dask.report.fits_files import card_text, safe_name
from bgmatch_dask.store import TractStore
from bgmatch_dask.warps.lsst import read_lsst_header, read_lsst_warp
from tests.tiny_store import (
    EVIL,
    GEOMETRY,
    MATCHED,
    PATCHES,
    REFERENCE,
    RUN,
    SCRIPT,
    STAR,
    STAR_PATCH,
    build_tiny_store,
)


@pytest.fixture(scope="module")
def location(tmp_path_factory):
    return build_tiny_store(tmp_path_factory.mktemp("export"))


def _open(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return fits.open(path, checksum=True, memmap=False)


def test_offsets_are_the_rendered_pixels(location, tmp_path):
    paths = export_fits(location, RUN, "offset", tmp_path)
    expected = [(visit, patch) for visit in (MATCHED, SCRIPT) for patch in PATCHES[visit]]
    assert len(paths) == len(expected)
    store = TractStore(location)
    for path, (visit, patch) in zip(paths, expected, strict=True):
        box = GEOMETRY.patches.outer_box(patch)
        offset = load_offset(store, RUN, visit)
        with _open(path) as hdus:
            hdus.verify("exception")
            assert hdus[0].header["BUNIT"] == "DN"
            assert hdus[0].header["BGVISIT"] == card_text(visit)
            assert hdus[0].data.astype("f4").tobytes() == render(offset, box).tobytes()
            variance = hdus["VARIANCE"].data.astype("f4")
            assert variance.tobytes() == render_variance(offset, box).tobytes()
            np.testing.assert_array_equal(hdus["FLAGS"].data, render_flags(offset, box))


def test_names_say_product_visit_and_patch(location, tmp_path):
    export_fits(location, RUN, "offset", tmp_path, visit=MATCHED)
    export_fits(location, RUN, "matched", tmp_path, visit=REFERENCE, patch=2)
    export_fits(location, RUN, "nimage", tmp_path, whole_tract=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "matched_visit12_patch2.fits",
        "nimage.fits",
        "offset_visit34_patch0.fits",
        "offset_visit34_patch1.fits",
    ]


def test_hostile_labels_stay_in_the_folder(location, tmp_path):
    folder = tmp_path / "out"
    for path in export_fits(location, RUN, "matched", folder, visit=SCRIPT):
        assert path.resolve().parent == folder.resolve()
    names = [safe_name(label) for label in ("a/b", "a_b", "a%2Fb", "..", EVIL, "\udc80", "é" * 99)]
    assert len(set(names)) == len(names)
    assert not any("/" in name or "\x00" in name or len(name) > 100 for name in names)
    assert safe_name("x" * 101) != safe_name("x" * 102)


@pytest.mark.parametrize("product", ["matched", "coadd", "unmatched-coadd"])
def test_star_is_at_its_sky_position(location, tmp_path, product):
    visit = REFERENCE if product == "matched" else None
    (path,) = export_fits(location, RUN, product, tmp_path, visit=visit, patch=STAR_PATCH)
    (mosaic,) = export_fits(location, RUN, product, tmp_path, visit=visit, whole_tract=True)
    for name in (path, mosaic):
        with _open(name) as hdus:
            hdus.verify("exception")
            assert [hdu.name for hdu in hdus[1:]] == ["IMAGE", "MASK", "VARIANCE"]
            image = hdus["IMAGE"]
            assert (image.header["BUNIT"], hdus["VARIANCE"].header["BUNIT"]) == ("DN", "DN**2")
            peak = np.unravel_index(np.nanargmax(image.data), image.data.shape)
            ra, dec = WCS(image.header).pixel_to_world_values(peak[1], peak[0])
        assert (float(ra), float(dec)) == pytest.approx(STAR, abs=1e-9)


def test_matched_warp_is_an_lsst_warp(tmp_path):
    location = build_tiny_store(tmp_path, unit="nJy")
    (path,) = export_fits(location, RUN, "matched", tmp_path, visit=MATCHED, patch=1)
    header, warp = read_lsst_header(path), read_lsst_warp(path)
    box = GEOMETRY.patches.outer_box(1)
    assert (header.visit, header.patch, header.bunit, warp.box) == (MATCHED, "1", "nJy", box)
    store = TractStore(location)
    offset = load_offset(store, RUN, MATCHED)
    expected = store.read("image", 1, 1, box) + render(offset, box)
    np.testing.assert_array_equal(warp.image, expected)
    expected = store.read("variance", 1, 1, box) + render_variance(offset, box)
    np.testing.assert_array_equal(warp.variance, expected)


@pytest.mark.parametrize("product", ["coadd", "matched", "offset", "nimage"])
def test_file_of_the_tract_is_made_of_inner_boxes(location, tmp_path, product):
    visit = MATCHED if product in {"matched", "offset"} else None
    (whole,) = export_fits(location, RUN, product, tmp_path, visit=visit, whole_tract=True)
    parts = export_fits(location, RUN, product, tmp_path, visit=visit)
    patches = GEOMETRY.patches
    with _open(whole) as hdus:
        planes = {hdu.name: np.array(hdu.data) for hdu in hdus if hdu.data is not None}
        assert planes[next(iter(planes))].shape == patches.tract_box.shape
        for path in parts:
            patch = int(path.stem.rsplit("patch", 1)[1])
            inner = patches.inner_box(patch)
            window = inner.slices_in(patches.tract_box)
            with _open(path) as part:
                for name, values in planes.items():
                    cut = part[name].data[inner.slices_in(patches.outer_box(patch))]
                    np.testing.assert_array_equal(values[window], cut)
    if visit is not None:
        first = planes[next(iter(planes))]
        assert np.isnan(first[patches.inner_height :]).all()


def test_same_export_same_bytes(location, tmp_path):
    for whole in (False, True):
        paths = export_fits(location, RUN, "coadd", tmp_path, whole_tract=whole)
        before = [path.read_bytes() for path in paths]
        paths = export_fits(location, RUN, "coadd", tmp_path, whole_tract=whole)
        assert [path.read_bytes() for path in paths] == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("whole", [False, True])
def test_the_unmatched_coadd_is_the_same_stored_or_computed(location, tmp_path, whole):
    stored = build_tiny_store(tmp_path, write_unmatched=True)
    found = {}
    for place, folder in ((location, "computed"), (stored, "stored")):
        paths = export_fits(place, RUN, "unmatched-coadd", tmp_path / folder, whole_tract=whole)
        found[folder] = {path.name: path.read_bytes() for path in paths}
    assert found["computed"] == found["stored"]
    assert len(found["stored"]) == (1 if whole else 4)
    assert not any("/c/" in name for name in location.list(f"coadd/{RUN}_unmatched"))
    assert any("/c/" in name for name in stored.list(f"coadd/{RUN}_unmatched"))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"product": "sky"}, "product-unknown"),
        ({"product": "coadd", "visit": MATCHED}, "export-conflict"),
        ({"product": "coadd", "patch": 0, "whole_tract": True}, "export-conflict"),
        ({"product": "coadd", "patch": 4}, "patch-unknown"),
        ({"product": "offset", "visit": "nobody"}, "visit-unknown"),
        ({"product": "offset", "visit": REFERENCE}, "offset-missing"),
        ({"product": "offset", "visit": MATCHED, "patch": 3}, "nothing-to-export"),
        ({"product": "matched", "visit": EVIL}, "nothing-to-export"),
        ({"product": "coadd", "run": "other"}, "run-missing"),
    ],
)
def test_what_cannot_be_exported_is_refused(location, tmp_path, options, code):
    arguments = {"run": RUN, **options}
    with pytest.raises(BgmatchError) as caught:
        export_fits(location, out_dir=tmp_path / "out", **arguments)
    assert caught.value.code == code
    folder = Path(tmp_path / "out")
    assert not folder.exists() or not list(folder.iterdir())
