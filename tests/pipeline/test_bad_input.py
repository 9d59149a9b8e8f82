"""Bad input is named, left out and counted; the rest of the tract is finished."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from bgmatch_dask.errors import PlanError
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from tests.conftest import make_job


def write_image(path, ra=150.0, seed=0, level=100.0, *, celestial=True, blank=False):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra, 2.0], [64.5, 64.5]
    wcs.wcs.cdelt = [-1 / 3600, 1 / 3600]
    pixels = np.random.default_rng(seed).normal(level, 3.0, (128, 128)).astype(np.float32)
    if blank:
        pixels[:] = np.nan
    header = wcs.to_header() if celestial else None
    fits.PrimaryHDU(pixels, header).writeto(path)
    return path


@pytest.fixture
def images(tmp_path):
    """Three good images and one of every kind of bad ones; returns folder and expected codes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        write_image(folder / f"good{number}.fits", seed=number, level=100 + 10 * number)
    truncated = write_image(folder / "truncated.fits")
    truncated.write_bytes(truncated.read_bytes()[:20000])
    write_image(folder / "nowcs.fits", celestial=False)
    write_image(folder / "elsewhere.fits", ra=200.0)
    write_image(folder / "blank.fits", blank=True)
    (folder / "garbage.fits").write_bytes(b"not a FITS file at all" * 300)
    (folder / "gone.fits").symlink_to(folder / "nowhere.fits")
    (folder / "more").mkdir()
    write_image(folder / "more" / "good1.fits", seed=99, level=500)
    codes = {
        "truncated.fits": "fits-truncated",
        "nowcs.fits": "wcs-missing",
        "elsewhere.fits": "outside-tract",
        "blank.fits": "no-data",
        "garbage.fits": "fits-unreadable",
        "gone.fits": "path-unreadable",
        "more/good1.fits": "duplicate-unit",
    }
    return folder, codes


def test_every_kind_is_rejected_and_the_tract_is_finished(images, tmp_path):
    folder, codes = images
    job = make_job(folder, tmp_path / "t.zarr", "background.bin_size=32", profile="generic")
    job = job.model_copy(
        update={"inputs": job.inputs.model_copy(update={"paths": (f"{folder}/**/*.fits",)})}
    )
    summary = run_tract(make_plan(job))
    found = {r["source"].removeprefix(f"{folder}/"): r["code"] for r in summary["rejected"]}
    assert found == codes
    assert [v["visit"] for v in summary["visits"]] == ["good0", "good1", "good2"]
    assert summary["overlaps"]["rms_after"] < 0.05


def test_the_command_exits_with_3_and_the_report_lists_them(images, tmp_path):
    folder, codes = images
    store = tmp_path / "t.zarr"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bgmatch_dask", "run", f"{folder}/**/*.fits"),
            *("--profile", "generic", "--store", str(store), "--workers", "1", "--json"),
            *("--set", "background.bin_size=32", "--quiet"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert sorted(r["code"] for r in summary["rejected"]) == sorted(codes.values())
    report = (store / "runs/main/report.html").read_text(encoding="utf-8")
    for name, code in codes.items():
        assert code in report
        assert name in report


def test_the_policy_fail_stops_before_work_begins(images, tmp_path):
    folder, _ = images
    job = make_job(folder, tmp_path / "t.zarr", "inputs.on_bad_input=fail", profile="generic")
    with pytest.raises(PlanError) as caught:
        make_plan(job)
    assert caught.value.code == "bad-input"
    assert not (tmp_path / "t.zarr").exists()


def test_a_second_warp_of_a_unit_with_other_bytes_is_rejected(simulated, tmp_path):
    folder = tmp_path / "warps"
    shutil.copytree(simulated / "warps", folder)
    first = min(folder.iterdir())
    shutil.copy(first, folder / f"a_same_{first.name}")
    other = folder / f"z_other_{first.name}"
    shutil.copy(first, other)
    with fits.open(other, mode="update") as hdus:
        hdus["IMAGE"].data[5, 5] = 1.0
        hdus["IMAGE"].add_checksum()
    summary = run_tract(make_plan(make_job(folder, tmp_path / "t.zarr")))
    assert [(r["code"], r["source"]) for r in summary["rejected"]] == [
        ("duplicate-unit", str(other))
    ]


def test_a_warp_without_a_good_pixel_is_rejected(simulated, tmp_path):
    folder = tmp_path / "warps"
    shutil.copytree(simulated / "warps", folder)
    blank = min(folder.iterdir())
    with fits.open(blank, mode="update") as hdus:
        hdus["IMAGE"].data[:] = np.nan
        hdus["IMAGE"].add_checksum()
    summary = run_tract(make_plan(make_job(folder, tmp_path / "t.zarr")))
    assert [(r["code"], r["source"]) for r in summary["rejected"]] == [("no-data", str(blank))]


def test_a_visit_that_overlaps_nothing_is_reported_and_harms_nobody(images, tmp_path):
    folder, _ = images
    for name in ("truncated", "nowcs", "elsewhere", "blank", "garbage", "gone"):
        (folder / f"{name}.fits").unlink()
    shutil.rmtree(folder / "more")
    alone = make_job(folder, tmp_path / "a.zarr", "background.bin_size=32", profile="generic")
    expected = {v["visit"]: v for v in run_tract(make_plan(alone))["visits"]}
    write_image(folder / "island.fits", ra=150.1, seed=7)
    job = make_job(folder, tmp_path / "b.zarr", "background.bin_size=32", profile="generic")
    found = {v["visit"]: v for v in run_tract(make_plan(job))["visits"]}
    assert found["island"]["status"] == "disconnected"
    assert found["island"]["gate"] == "warn"
    for visit, row in expected.items():
        assert found[visit]["status"] in {"matched", "reference"}
        assert found[visit]["sky_level"] == pytest.approx(row["sky_level"], abs=0.5)
