"""No name or label from an input writes outside the store or injects markup or terminal codes."""

from __future__ import annotations

import shutil

import pytest
from astropy.io import fits
from typer.testing import CliRunner

from bgmatch_dask.cli.main import app
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.report.export import export_fits
from bgmatch_dask.report.html import write_report
from bgmatch_dask.store import Location
from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract
from tests.conftest import make_job

MARKUP = ("<img src=x onerror=alert(1)>", "'\"><svg onload=alert(2)>", "%2e%2e%2fx")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A finished run of visits whose labels are markup, on files whose names are no better."""
    place = tmp_path_factory.mktemp("labels")
    simulate_tract(place, SimulationConfig(visits=3, patches=(2, 1), patch_size=128, border=16))
    warps = place / "warps"
    names = sorted({path.name.split("_")[1] for path in warps.iterdir()})
    labels = dict(zip(names, MARKUP, strict=True))
    for path in sorted(warps.iterdir()):
        with fits.open(path, mode="update") as hdus:
            hdus[0].header["HIERARCH LSST BUTLER DATAID VISIT"] = labels[path.name.split("_")[1]]
            hdus[0].header["FILTER"] = "<b>i<b>"
            hdus[0].header.remove("EXPID")
    first = min(warps.iterdir())
    first.rename(warps / "<script>alert(3)<.fits")
    (warps / "<iframe src=x>.fits").write_bytes(b"no FITS")
    (warps / "a\x1b]0;owned\x07.fits").write_bytes(b"no FITS")
    place = place / "store" / "t.zarr"
    summary = run_tract(make_plan(make_job(warps, place, "background.bin_size=32")))
    write_report(Location.of(str(place)), "main")
    return place, summary


def test_labels_are_kept_as_text(hostile):
    _, summary = hostile
    assert sorted(v["visit"] for v in summary["visits"]) == sorted(MARKUP)
    codes = sorted(r["code"] for r in summary["rejected"])
    assert codes == ["fits-unreadable", "path-unusable"]


def test_the_report_escapes_them(hostile):
    place, _ = hostile
    report = (place / "runs/main/report.html").read_text(encoding="utf-8")
    for tag in ("<img src=x", "<svg onload", "<iframe", "<script>alert", "<b>i"):
        assert tag not in report
    assert "&lt;img src=x onerror" in report
    assert "\x1b" not in report
    assert "\x07" not in report


def test_nothing_is_written_beside_the_store(hostile):
    place, _ = hostile
    assert [path.name for path in place.parent.iterdir()] == ["t.zarr"]
    for path in place.rglob("*"):
        assert "<" not in path.name
        assert path.resolve().is_relative_to(place.resolve())


@pytest.mark.parametrize("product", ["offset", "background", "matched"])
def test_exports_stay_in_their_folder(hostile, tmp_path, product):
    place, _ = hostile
    out = tmp_path / "out" / "deep"
    paths = export_fits(Location.of(str(place)), "main", product, out)
    assert len(paths) == len(set(paths)) > 0
    assert {path.parent for path in paths} == {out}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_commands_print_no_terminal_codes(hostile, tmp_path):
    place, _ = hostile
    warps = tmp_path / "warps"
    shutil.copytree(place.parents[1] / "warps", warps)
    done = CliRunner().invoke(app, ["plan", str(warps), "--set", "background.bin_size=32"])
    assert done.exit_code == 3
    assert "path-unusable" in done.output
    assert "\x1b" not in done.output
    assert "\x07" not in done.output


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 65, "a\nb"])
def test_run_names_cannot_leave_the_store(tmp_path, name):
    from bgmatch_dask.config import load_config
    from bgmatch_dask.errors import ConfigError

    with pytest.raises(ConfigError):
        load_config(values={"run": name})
