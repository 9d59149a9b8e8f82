"""Warps come from a Butler repository, and results go back to it, without the LSST stack."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
from astropy.table import Table
from typer.testing import CliRunner

from bgmatch_dask.cli.main import app
from bgmatch_dask.config import load_config
from bgmatch_dask.errors import BgmatchError
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.report.butler_outputs import export_datasets, put_datasets, write_ingest_tables
from bgmatch_dask.store import Location
from bgmatch_dask.store.data_ids import read_data_ids
from bgmatch_dask.store.visits import read_visits
from bgmatch_dask.warps.background_fits import read_background_list
from bgmatch_dask.warps.lsst import read_lsst_header
from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract
from tests.butler_repo import (
    COLLECTION,
    FIRST_PATCH,
    SKYMAP,
    STACK_FORMATTER,
    TRACT,
    copy_repo,
    make_repo,
    remove_artifact,
)
from tests.conftest import make_job

pytest.importorskip("lsst.daf.butler")
pytestmark = [
    # These come from inside the Butler and its database, not from us.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lsst"),
]

WHERE = f"tract = {TRACT} AND skymap = '{SKYMAP}' AND band = 'i'"
OUT = "u/me/matched"


@pytest.fixture(scope="module")
def warps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("butler")
    simulate_tract(folder, SimulationConfig(visits=3, patches=(2, 1), patch_size=128, border=16))
    return folder / "warps"


@pytest.fixture(scope="module")
def repo(warps):
    return make_repo(warps.parent / "repo", warps)


def job(repo, store, *overrides, where=WHERE, collections=COLLECTION, kind="direct_warp"):
    butler = {
        "repo": str(repo),
        "collections": collections,
        "where": where,
        "dataset_type": kind,
    }
    return load_config(
        values={
            "inputs": {"source": "butler", "butler": butler},
            "store": {"url": str(store)},
            "background": {"bin_size": 32},
        },
        overrides=overrides,
    )


@pytest.fixture(scope="module")
def finished(repo, tmp_path_factory):
    store = tmp_path_factory.mktemp("finished") / "t.zarr"
    run_tract(make_plan(job(repo, store)))
    return Location.of(str(store))


def code_of(call):
    with pytest.raises(BgmatchError) as caught:
        call()
    return caught.value.code, str(caught.value)


def test_the_repository_names_formatters_that_are_not_here(repo):
    import sqlite3

    database = sqlite3.connect(repo / "gen3.sqlite3")
    names = {name for (name,) in database.execute("SELECT formatter FROM file_datastore_records")}
    database.close()
    assert names == {STACK_FORMATTER}
    with pytest.raises(ImportError):
        __import__("lsst.obs.base")


def test_the_same_warps_give_the_same_bytes_as_a_folder(finished, warps, tmp_path):
    run_tract(make_plan(make_job(warps, tmp_path / "f.zarr", "background.bin_size=32")))
    folder = Location.of(str(tmp_path / "f.zarr"))
    names = [n for n in folder.list("coadd") if "/c/" in n]
    assert names
    for name in names:
        assert finished.read_bytes(name) == folder.read_bytes(name), name


def test_the_files_of_a_repository_may_lie_in_an_object_store(
    finished, warps, tmp_path, s3, monkeypatch
):
    pytest.importorskip("boto3")
    monkeypatch.setenv("S3_ENDPOINT_URL", s3.endpoint)
    bucket = s3.make_bucket()
    repo = make_repo(tmp_path / "repo", warps, f"{bucket}/files")
    plan = make_plan(job(repo, tmp_path / "t.zarr"))
    assert {file.path.partition("/LSSTCam")[0] for task in plan.ingest for file in task.files} == {
        f"{bucket}/files"
    }
    run_tract(plan)
    there = Location.of(str(tmp_path / "t.zarr"))
    names = [n for n in finished.list("coadd") if "/c/" in n]
    assert [n for n in names if there.read_bytes(n) != finished.read_bytes(n)] == []


def test_the_table_of_visits_comes_from_the_registry(finished):
    table = read_visits(finished)
    times = {facts["exposure_time"] for facts in table.values()}
    assert times == {15.0, 16.0, 17.0}
    assert {facts["physical_filter"] for facts in table.values()} == {"i_39"}
    first = min(facts["mjd"] for facts in table.values())
    assert first == pytest.approx(61041.0 + 15 / 86400, abs=1e-8)
    patches = {data_id["patch"] for data_id in read_data_ids(finished).values()}
    assert patches == {FIRST_PATCH, FIRST_PATCH + 1}


def test_a_missing_file_is_rejected_and_the_tract_is_finished(repo, tmp_path):
    broken = copy_repo(repo, tmp_path / "repo")
    gone = remove_artifact(broken)
    summary = run_tract(make_plan(job(broken, tmp_path / "t.zarr")))
    assert [(r["code"], r["source"]) for r in summary["rejected"]] == [
        ("path-unreadable", str(gone))
    ]


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"where": "tract = 1 AND skymap = 'lsst_cells_v2'"}, "inputs-empty", "finds no"),
        ({"where": "tract ="}, "butler-query", "refuses"),
        ({"where": "colour = 'red'"}, "butler-query", "refuses"),
        ({"collections": "nobody/knows"}, "butler-query", "nobody/knows"),
        ({"kind": "no_such_type"}, "butler-query", "no_such_type"),
    ],
)
def test_what_the_butler_refuses_is_said(repo, tmp_path, change, code, says):
    found, message = code_of(lambda: make_plan(job(repo, tmp_path / "t.zarr", **change)))
    assert found == code, message
    assert says in message


def test_a_repository_that_is_not_there_is_named(tmp_path):
    assert code_of(lambda: make_plan(job(tmp_path / "x", tmp_path / "t.zarr")))[0] == "butler-repo"
    config = load_config(values={"inputs": {"source": "butler"}})
    assert code_of(lambda: make_plan(config))[0] == "butler-repo"


def test_outputs_are_found_again_by_a_query(finished, repo, tmp_path):
    from lsst.daf.butler import Butler

    target = copy_repo(repo, tmp_path / "repo")
    names = ("bgmatch_offset", "bgmatch_matched_warp", "bgmatch_coadd")
    datasets = export_datasets(finished, "main", tmp_path / "out", names)
    assert put_datasets(datasets, str(target), OUT) == len(datasets)
    assert put_datasets(datasets, str(target), OUT) == 0
    butler = Butler.from_config(str(target))
    found = {}
    for name in names:
        refs = butler.query_datasets(name, collections=OUT, where=WHERE, explain=False)
        found[name] = {str(r.dataId["patch"]): butler.getURI(r).ospath for r in refs}
        assert len(refs) == sum(item.dataset_type == name for item in datasets) > 0
    butler.close()
    assert set(found["bgmatch_coadd"]) == {"40", "41"}
    assert read_lsst_header(found["bgmatch_coadd"]["40"]).bunit == "nJy"
    drawn = read_background_list(found["bgmatch_offset"]["41"]).render()
    assert np.isfinite(drawn).all()


def test_tables_and_a_script_for_the_stack_are_written(finished, tmp_path):
    datasets = export_datasets(finished, "main", tmp_path / "out", ["bgmatch_coadd"])
    table, script = write_ingest_tables(datasets, "/repo/main", OUT, tmp_path / "out")
    rows = Table.read(table, format="ascii.ecsv")
    assert rows.colnames == ["filename", "skymap", "tract", "patch", "band"]
    assert all((tmp_path / "out" / name).is_file() for name in rows["filename"])
    text = script.read_text(encoding="utf-8")
    assert "butler ingest-files /repo/main bgmatch_coadd u/me/matched bgmatch_coadd.ecsv" in text
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_outputs_need_inputs_from_a_butler(warps, tmp_path):
    run_tract(make_plan(make_job(warps, tmp_path / "f.zarr", "background.bin_size=32")))
    place = Location.of(str(tmp_path / "f.zarr"))
    call = lambda: export_datasets(place, "main", tmp_path / "out", ["bgmatch_coadd"])  # noqa: E731
    assert code_of(call)[0] == "data-ids-missing"


def test_the_commands(repo, tmp_path):
    """``run --butler`` with worker processes, and ``butler-ingest``."""
    target = copy_repo(repo, tmp_path / "repo")
    store = str(tmp_path / "t.zarr")
    run = ["run", "--butler", str(target), "--collections", COLLECTION, "--where", WHERE]
    run += ["--store", store, "--workers", "2", "--set", "background.bin_size=32"]
    put = ["butler-ingest", store, str(tmp_path / "out"), "--butler", str(target)]
    for words in ([*run, "--quiet", "--json"], [*put, "--collection", OUT, "--json"]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    assert facts["ingested"] == len(facts["files"]) > 2
