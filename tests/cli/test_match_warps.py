"""Matching single files from the command line: simulated warps, and two real images."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.wcs import WCS
from typer.testing import CliRunner

from bgmatch_dask.background.per_warp import PerWarpConfig, match_warp
from bgmatch_dask.cli.main import app
from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import NO_DATA
from bgmatch_dask.numerics.chebyshev import Weighting
from bgmatch_dask.warps.background_fits import read_background_list
from bgmatch_dask.warps.lsst import read_lsst_header, read_lsst_warp
from bgmatch_dask.warps.lsst_writing import write_lsst_warp
from bgmatch_dask.warps.profile import load_profile
from bgmatch_dask.warps.simulation import SimulationConfig
from bgmatch_dask.warps.warp import Warp


def bgmatch(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def warps(simulated):
    """Two warps that meet on their patch, and one of another patch."""
    folder = simulated / "warps"
    # The other patches are crossed by a trail that no mask covers.
    first = sorted(folder.glob("*_p1.fits"))
    return first[0], first[1], next(iter(sorted(folder.glob("*_p0.fits"))))


def test_lsst_warps(warps, tmp_path):
    reference, science, _ = warps
    options = ["--bin-size", 64, "--max-rms", 1000, "--plot", tmp_path / "fits.png", "--json"]
    result = bgmatch("match-warps", reference, reference, science, "--out", tmp_path, *options)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["reference"] == str(reference)
    assert facts["failed"] == []
    (row,) = facts["matched"]
    assert row["source"] == str(science)
    assert row["gate"] == "pass"
    assert row["ratio"] < 1.1
    assert 0 < row["coverage"] <= 1
    assert (tmp_path / "fits.png").read_bytes().startswith(b"\x89PNG")

    match = match_warp(
        read_lsst_warp(reference), read_lsst_warp(science), PerWarpConfig(bin_size=64)
    )
    written = read_lsst_warp(row["image"])
    np.testing.assert_array_equal(written.image, match.warp.image)
    np.testing.assert_array_equal(written.mask, match.warp.mask)
    good = np.isfinite(written.image)
    added = written.variance[good] - match.warp.variance[good]
    np.testing.assert_allclose(added, row["fit_rms"] ** 2, rtol=1e-2)
    offset = read_background_list(row["offset"]).render()
    np.testing.assert_array_equal(offset, match.model.render())
    before, after = read_lsst_header(science), read_lsst_header(row["image"])
    assert (after.visit, after.tract, after.patch) == (before.visit, before.tract, before.patch)
    assert after.box == before.box
    assert fits.getheader(row["image"])["BGM_RMS"] == pytest.approx(row["fit_rms"])


def test_polynomial_and_its_options(warps, tmp_path):
    options = ["--polynomial", "--order", 1, "--bin-size", 64, "--weighting", "inverse_sigma"]
    options += ["--statistic", "MEANCLIP", "--mask", "NO_DATA", "--mask", "DETECTED"]
    result = bgmatch("match-warps", *warps[:2], "--out", tmp_path, *options)
    assert result.exit_code == 0, result.output
    (path,) = tmp_path.glob("*-offset.fits")
    polynomial = read_background_list(path)[0].approximation
    assert polynomial.order == 1
    assert polynomial.weighting is Weighting.INVERSE_SIGMA


def test_the_same_command_writes_the_same_images(warps, tmp_path):
    contents = []
    for name in ("a", "b"):
        options = ["--bin-size", 64, "--plot", tmp_path / name / "p.png"]
        bgmatch("match-warps", *warps[:2], "--out", tmp_path / name, *options)
        files = [p for p in (tmp_path / name).iterdir() if "offset" not in p.name]
        contents.append({p.name: p.read_bytes() for p in files})
    assert len(contents[0]) == 2
    assert contents[0] == contents[1]


def test_what_fails_is_listed_and_stops_nothing(warps, tmp_path):
    missing = tmp_path / "missing.fits"
    result = bgmatch(
        "match-warps", *warps, missing, "--out", tmp_path / "out", "--bin-size", 64, "--json"
    )
    assert result.exit_code == 3
    facts = json.loads(result.stdout)
    assert len(facts["matched"]) == 1
    assert {r["source"]: r["code"] for r in facts["failed"]} == {
        str(warps[2]): "grid-mismatch",
        str(missing): "path-unreadable",
    }
    table = bgmatch("match-warps", *warps, "--out", tmp_path / "out", "--bin-size", 64)
    assert table.exit_code == 3
    assert "failed: " in table.output
    assert "fitRMS" in table.output


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--order", -1], 2, "per-warp-config"),
        (["--mask", "NONSENSE"], 2, "mask-plane-unknown"),
        (["--profile", "nonsense"], 2, "profile-unknown"),
        (["--statistic", "SUM"], 2, "MEANCLIP"),
    ],
)
def test_wrong_usage(warps, tmp_path, options, code, says):
    result = bgmatch("match-warps", *warps[:2], "--out", tmp_path, *options)
    assert result.exit_code == code
    assert says in result.output


def test_names_that_collide_are_refused(warps, tmp_path):
    copy = tmp_path / "copy" / warps[1].name
    copy.parent.mkdir()
    shutil.copy(warps[1], copy)
    result = bgmatch("match-warps", warps[0], warps[1], copy, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "match-files-names" in result.output


def test_an_unusable_reference_is_a_failure(warps, tmp_path):
    result = bgmatch("match-warps", tmp_path / "none.fits", warps[1], "--out", tmp_path)
    assert result.exit_code == 1
    assert "path-unreadable" in result.output


def test_warps_of_another_grid_on_the_sky_are_refused(warps, tmp_path):
    header = read_lsst_header(warps[1])
    cards = {**dict(header.wcs_cards)}
    cards["CRVAL2"] += 1 / 3600
    moved = tmp_path / "moved.fits"
    labels = {"visit": 1, "tract": 0, "patch": 0, "band": "r"}
    write_lsst_warp(moved, read_lsst_warp(warps[1]), list(cards.items()), **labels)
    result = bgmatch("match-warps", warps[0], moved, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["failed"][0]["code"] == "grid-mismatch"


def test_images_on_different_grids(tmp_path):
    """The second image lies 20 pixels off the first and is 7 fainter; there are no masks."""
    random = np.random.default_rng(3)
    paths = []
    for shift, level in ((0.0, 100.0), (20.0, 93.0)):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.cunit = ["RA---TAN", "DEC--TAN"], ["deg", "deg"]
        wcs.wcs.cdelt, wcs.wcs.crval = [-1e-4, 1e-4], [150.0, 2.0]
        wcs.wcs.crpix = [100.0 - shift, 100.0]
        image = random.normal(level, 2.0, (200, 220)).astype(np.float32)
        paths.append(tmp_path / f"image{shift:.0f}.fits")
        fits.writeto(paths[-1], image, wcs.to_header())
    options = ["--profile", "generic", "--bin-size", 64, "--json"]
    result = bgmatch("match-warps", *paths, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["matched"]
    matched, header = fits.getdata(row["image"], header=True)
    assert np.nanmean(matched) == pytest.approx(100, abs=0.1)
    assert np.isnan(matched[:, :19]).all()
    assert np.isfinite(matched[:, 21:]).all()
    assert row["coverage"] == 1
    assert header["CRPIX1"] == 100
    assert row["ratio"] < 1.1


def raw_profile(folder):
    """The pixels as they are in the files: no common zero point."""
    data = load_profile("sdss").model_dump(mode="json", exclude={"name", "zero_point"})
    path = folder / "raw.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_step_between_two_sdss_runs_is_gone(shared_data, tmp_path):
    folder = shared_data / "sdss_stripe82_fpC"
    reference, science = folder / "fpC-004192-r4-0300.fits", folder / "fpC-006377-r4-0399.fits"
    profile = ["--profile", raw_profile(tmp_path), "--plot", tmp_path / "fits.png"]
    result = bgmatch("match-warps", reference, science, "--out", tmp_path, *profile, "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["matched"]
    assert row["gate"] == "pass"
    assert row["ratio"] < 1.1
    offset = read_background_list(row["offset"]).render()
    assert offset.mean() == pytest.approx(25.46, abs=0.15)
    assert np.ptp(offset) < 2
    with fits.open(row["image"]) as hdus:
        assert len(hdus) == 1
        matched = hdus[0].data
    left = fits.getdata(reference).astype(np.float64) - 1000 - matched
    assert abs(np.nanmedian(left)) < 0.2


def test_the_golden_pair(tmp_path):
    """50 rows × 60 columns with a gap: the figures of the upstream task, cells of 16 pixels."""
    y, x = np.mgrid[:50, :60].astype(np.float64)
    reference = 50 + 0.02 * x + ((x * y + 2 * x + 3 * y) % 11) - 5
    science = 10 - 0.03 * y + ((x * y + 5 * x + y) % 13) - 6
    science[:, 20:30] = np.nan
    cards = SimulationConfig().geometry.wcs_cards
    for visit, image in ((1, reference), (2, science)):
        bad = ~np.isfinite(image)
        warp = Warp(
            Box(0, 0, 60, 50),
            image.astype(np.float32),
            np.where(bad, np.inf, 1.0).astype(np.float32),
            np.where(bad, NO_DATA, 0).astype(np.int32),
        )
        path = tmp_path / f"{visit}.fits"
        write_lsst_warp(path, warp, cards, visit=visit, tract=1, patch=0, band="r")
    options = ["--bin-size", 16, "--upstream", "--json", "--quiet"]
    paths = [tmp_path / name for name in ("1.fits", "2.fits")]
    result = bgmatch("match-warps", *paths, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)["matched"][0]
    assert row["fit_rms"] == pytest.approx(0.47575042, rel=1e-6)
    assert row["matched_mse"] == pytest.approx(22.68198316, rel=1e-7)
    assert row["difference_variance"] == 2.0
