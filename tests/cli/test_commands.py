"""The commands as people and programs use them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from bgmatch_dask.cli.main import app
from bgmatch_dask.config import load_config


def bgmatch(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def store(simulated, tmp_path_factory):
    from bgmatch_dask.pipeline.plan import make_plan
    from bgmatch_dask.pipeline.run import run_tract
    from tests.conftest import make_job

    path = tmp_path_factory.mktemp("cli") / "tract.zarr"
    run_tract(make_plan(make_job(simulated / "warps", path)))
    return path


def test_help_names_every_command_and_loads_nothing_heavy():
    code = (
        "import sys; from typer.testing import CliRunner; from bgmatch_dask.cli.main import app;"
        "out = CliRunner().invoke(app, ['--help']).output;"
        "heavy = {'numpy', 'dask', 'zarr', 'astropy', 'numba', 'pydantic'} & sys.modules.keys();"
        "print(heavy or out)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in (
        "demo",
        "simulate",
        "plan",
        "run",
        "report",
        "export",
        "info",
        "config",
        "match-warps",
    ):
        assert command in done.stdout


def test_plan_json(simulated, tmp_path):
    result = bgmatch("plan", simulated / "warps", "--store", tmp_path / "t.zarr", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts.pop("store") == (tmp_path / "t.zarr").as_uri()
    assert facts.pop("units") == len(list((simulated / "warps").iterdir()))
    assert facts.pop("input_bytes") == sum(
        p.stat().st_size for p in (simulated / "warps").iterdir()
    )
    for key in ("store_bytes", "worker_bytes"):
        assert facts.pop(key) > 1e6
    assert facts == {
        "run": "main",
        "tract": "tract",
        "band": "r",
        "unit": "nJy",
        "visits": ["1200", "1214", "1228", "1242", "1256"],
        "patches": {"nx": 2, "ny": 2, "inner": [256, 256], "border": 32},
        "superpixels": [4, 4],
        "passed_over": 0,
        "rejected": [],
    }
    assert not (tmp_path / "t.zarr").exists()


def test_info_json(store):
    facts = json.loads(bgmatch("info", store, "--json").stdout)
    assert set(facts) == {
        *("store", "tract", "band", "unit", "visits", "patches", "bin_size", "run", "version"),
        "finished",
        *("reference", "overlaps", "rejected", "timings"),
    }
    assert facts["finished"] is True
    assert facts["patches"] == [2, 2]
    assert set(facts["timings"]) == {"ingest", "reference", "difference", "solve", "coadd"}
    assert set(facts["overlaps"]) == {"pairs", "rms_before", "rms_after", "worst"}


def test_info_for_people(store):
    result = bgmatch("info", store)
    assert result.exit_code == 0
    assert "finished" in result.output
    assert "rms of" in result.output


def test_config_show_is_a_valid_configuration(tmp_path):
    shown = bgmatch("config", "show", "--set", "background.bin_size=77")
    file = tmp_path / "job.yaml"
    file.write_text(shown.stdout, encoding="utf-8")
    assert load_config(file) == load_config(overrides=["background.bin_size=77"])
    assert json.loads(bgmatch("config", "validate", file, "--json").stdout) == {
        "file": str(file),
        "valid": True,
    }
    as_json = json.loads(bgmatch("config", "show", file, "--json").stdout)
    assert as_json == yaml.safe_load(shown.stdout)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["config", "show", "--set", "background.binsize=3"], 2, "background.bin_size"),
        (["config", "show", "--set", "nonsense"], 2, "section.field=value"),
        (["config", "validate", "missing.yaml"], 2, "config-unreadable"),
        (["plan", "missing.fits"], 1, "path-unreadable"),
        (["plan", "missing*.fits"], 1, "inputs-empty"),
        (["plan", "x.fits", "--profile", "none"], 2, "profile-unknown"),
        (["info", "missing.zarr"], 1, "store-missing"),
        (["simulate", "out", "--patches", "3"], 2, "patches-invalid"),
        (["run", "--bogus"], 2, "No such option"),
        (["info", "missing.zarr", "--run", "../x"], 2, "--run"),
    ],
)
def test_errors_say_what_where_and_what_to_do(arguments, code, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = bgmatch(*arguments)
    assert result.exit_code == code
    assert says in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_export_and_report(store, tmp_path):
    result = bgmatch("export", store, tmp_path, "--product", "coadd", "--whole-tract", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["files"] == [str(tmp_path / "coadd.fits")]
    facts = json.loads(bgmatch("report", store, "--json").stdout)
    assert facts["report"].endswith("report.html")


def test_simulate_json(tmp_path):
    options = ["--visits", 3, "--patches", "1x1", "--patch-size", 96, "--border", 8]
    result = bgmatch("simulate", tmp_path, *options, "--workers", 1, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["warps"] == len(list((tmp_path / "warps").iterdir()))


def test_module_and_script_are_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "bgmatch_dask", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("bgmatch ")
