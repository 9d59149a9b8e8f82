"""Offsets on detector pixels: the tract's surface at the place of every pixel."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, Sip
from typer.testing import CliRunner

from bgmatch_dask.background.layout import node_shape
from bgmatch_dask.background.offsets import on_wcs, render, render_flags, render_variance
from bgmatch_dask.background.solution import Offset
from bgmatch_dask.cli.main import app
from bgmatch_dask.errors import BgmatchError
from bgmatch_dask.geometry import Box
from bgmatch_dask.pipeline.results import load_offset
from bgmatch_dask.report.frames import export_onto
from bgmatch_dask.store import TractStore
from tests.tiny_store import GEOMETRY, MATCHED, REFERENCE, RUN, build_tiny_store

TRACT = GEOMETRY.patches.tract_box


@pytest.fixture(scope="module")
def location(tmp_path_factory):
    return build_tiny_store(tmp_path_factory.mktemp("onto"))


@pytest.fixture(scope="module")
def offset(location):
    return load_offset(TractStore(location), RUN, MATCHED)


def detector(angle=31.0, scale=0.26, *, distorted=True, centre=(20.0, 17.0)) -> WCS:
    """Return the WCS of a turned detector that looks at the middle of the tract."""
    wcs = WCS(naxis=2)
    middle = TRACT.x0 + TRACT.width / 2, TRACT.y0 + TRACT.height / 2
    wcs.wcs.crval = GEOMETRY.wcs().all_pix2world(*middle, 0)
    wcs.wcs.crpix = centre
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * scale / 3600
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if distorted else ["RA---TAN", "DEC--TAN"]
    if distorted:
        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], b[0, 2] = 2e-4, -1e-4
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def places(wcs, shape):
    y, x = np.indices(shape, np.float64)
    return GEOMETRY.wcs().all_world2pix(*wcs.all_pix2world(x, y, 0), 0)


def test_the_tract_itself_comes_back(offset):
    box = Box(TRACT.x0 + 3, TRACT.y0 + 5, 61, 47)
    found = on_wcs(offset, GEOMETRY.wcs(box), box.shape, GEOMETRY.wcs(), rows=7)
    np.testing.assert_allclose(found.image, render(offset, box), rtol=3e-7)
    np.testing.assert_allclose(found.variance, render_variance(offset, box), rtol=1e-6)
    np.testing.assert_array_equal(found.flags, render_flags(offset, box))


def test_a_turned_distorted_detector_sees_the_tract_rendering_resampled(offset):
    """Compare with an independent interpolation of the rendered tract, which is twice finer."""
    from scipy.ndimage import map_coordinates

    wcs, shape = detector(), (30, 36)
    x, y = places(wcs, shape)
    found = on_wcs(offset, wcs, shape, GEOMETRY.wcs(), flux_per_pixel=False)
    whole = render(offset, TRACT).astype(np.float64)
    expected = map_coordinates(whole, [y - TRACT.y0, x - TRACT.x0], order=3)
    inside = np.isfinite(found.image)
    assert inside.all()
    # The cubic spline through rendered pixels differs from the surface by its fourth derivative.
    np.testing.assert_allclose(found.image, expected, atol=3e-4)


def test_a_ramp_of_the_tract_is_exact_on_every_detector_pixel(offset):
    grid = offset.grid
    j, i = np.indices(node_shape(grid, 1))
    nodes = 40 - 0.3 * (grid.x_centres[0] + (i - 2) * grid.bin_x)
    nodes = nodes + 0.7 * (grid.y_centres[0] + (j - 2) * grid.bin_y)
    ramp = Offset(MATCHED, grid, 1, nodes, offset.variance, offset.flags)
    wcs, shape = detector(), (32, 40)
    x, y = places(wcs, shape)
    found = on_wcs(ramp, wcs, shape, GEOMETRY.wcs(), flux_per_pixel=False)
    np.testing.assert_array_equal(found.image, (40 - 0.3 * x + 0.7 * y).astype(np.float32))


def test_blocks_of_rows_do_not_show(offset):
    wcs, shape = detector(), (33, 25)
    whole = on_wcs(offset, wcs, shape, GEOMETRY.wcs(), rows=500)
    for rows in (1, 7):
        part = on_wcs(offset, wcs, shape, GEOMETRY.wcs(), rows=rows)
        for name in ("image", "variance", "flags"):
            assert getattr(part, name).tobytes() == getattr(whole, name).tobytes()


def test_flux_follows_the_area_of_a_pixel(offset):
    """The flux of the offset over a field is the same on either pixel grid."""
    wcs, shape = detector(scale=0.4, distorted=False, centre=(6.0, 6.0)), (12, 12)
    flux = on_wcs(offset, wcs, shape, GEOMETRY.wcs())
    brightness = on_wcs(offset, wcs, shape, GEOMETRY.wcs(), flux_per_pixel=False)
    np.testing.assert_allclose(flux.image / brightness.image, 4.0, rtol=1e-6)
    np.testing.assert_allclose(flux.variance / brightness.variance, 16.0, rtol=1e-6)
    bent = on_wcs(offset, detector(scale=0.2), (30, 36), GEOMETRY.wcs())
    flat = on_wcs(offset, detector(scale=0.2), (30, 36), GEOMETRY.wcs(), flux_per_pixel=False)
    u, v = np.indices((30, 36))[::-1] - np.array([19.0, 16.0]).reshape(2, 1, 1)
    jacobian = (1 + 4e-4 * u) * (1 - 2e-4 * v)
    np.testing.assert_allclose(bent.image / flat.image, jacobian, rtol=2e-6)


def test_off_the_tract_there_is_no_offset(offset):
    wcs, shape = detector(scale=1.2), (60, 70)
    found = on_wcs(offset, wcs, shape, GEOMETRY.wcs())
    x, y = places(wcs, shape)
    inside = (np.abs(x - TRACT.x0 + 0.5 - TRACT.width / 2) <= TRACT.width / 2) & (
        np.abs(y - TRACT.y0 + 0.5 - TRACT.height / 2) <= TRACT.height / 2
    )
    assert 0.02 < inside.mean() < 0.5
    np.testing.assert_array_equal(np.isfinite(found.image), inside)
    np.testing.assert_array_equal(np.isfinite(found.variance), inside)
    np.testing.assert_array_equal(found.flags != 0, inside)
    wcs.wcs.crval = [330.1, -2.2]  # The other side of the sky, where the tract's plane has no place
    assert np.isnan(on_wcs(offset, wcs, shape, GEOMETRY.wcs()).image).all()


def write_frame(path, wcs, shape=(30, 36)):
    header = wcs.to_header(relax=True)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.zeros(shape, np.int16), header, "IMAGE")]
    fits.HDUList(hdus).writeto(path)
    return path


def test_export_onto_a_frame_by_the_command(location, offset, tmp_path):
    wcs = detector()
    frame = write_frame(tmp_path / "det 07.fits", wcs)
    words = ["export", location.url, str(tmp_path / "out"), "--product", "offset", "--json"]
    result = CliRunner().invoke(app, [*words, "--visit", MATCHED, "--onto", str(frame)])
    assert result.exit_code == 0, result.output
    (path,) = json.loads(result.output)["files"]
    assert path.endswith("offset_visit34_onto_det%2007.fits")
    expected = on_wcs(offset, wcs, (30, 36), GEOMETRY.wcs())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")
            assert [hdu.name for hdu in hdus] == ["OFFSET", "VARIANCE", "FLAGS"]
            np.testing.assert_allclose(hdus[0].data, expected.image, rtol=1e-6)
            np.testing.assert_allclose(hdus[1].data, expected.variance, rtol=1e-6)
            np.testing.assert_array_equal(hdus[2].data, expected.flags)
            assert hdus[0].header["BUNIT"] == "DN"
            for hdu in hdus:
                sky = WCS(hdu.header).all_pix2world([[5.0, 30.0]], 0)
                np.testing.assert_allclose(sky, wcs.all_pix2world([[5.0, 30.0]], 0), atol=1e-9)
    bad = CliRunner().invoke(app, [*words, "--onto", str(frame)])
    assert bad.exit_code == 2


def test_frames_that_make_no_sense_are_refused(location, tmp_path):
    far = detector()
    far.wcs.crval = [10.0, 60.0]
    away = write_frame(tmp_path / "away.fits", far)
    no_wcs = tmp_path / "plain.fits"
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(no_wcs)
    (tmp_path / "sub").mkdir()
    twin = write_frame(tmp_path / "sub" / "away.fits", far)
    for frames, visit, code in (
        ([away], MATCHED, "nothing-to-export"),
        ([no_wcs], MATCHED, "wcs-missing"),
        ([tmp_path / "missing.fits"], MATCHED, "path-unreadable"),
        ([away, twin], MATCHED, "export-conflict"),
        ([away], REFERENCE, "offset-missing"),
    ):
        with pytest.raises(BgmatchError) as caught:
            export_onto(location, RUN, frames, tmp_path / "out", visit)
        assert caught.value.code == code
    assert not list((tmp_path / "out").glob("*"))
