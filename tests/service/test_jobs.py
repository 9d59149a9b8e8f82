"""Jobs outlive whoever submits them, tell the truth about themselves, and can be taken up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
import yaml

from bgmatch_dask.errors import ConfigError
from bgmatch_dask.service.jobs.files import JobFiles
from bgmatch_dask.service.jobs.record import RunPlace
from bgmatch_dask.service.jobs.status import from_post, from_stores
from bgmatch_dask.store import Location
from tests.conftest import make_job
from tests.service.processes import bgmatch, cluster_of_processes, end, wait_until

OVER = {"finished", "failed", "cancelled", "interrupted"}


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """A scheduler process with two worker processes."""
    with cluster_of_processes(tmp_path_factory.mktemp("cluster"), gated=True) as found:
        yield found


@pytest.fixture
def state(tmp_path, tmp_path_factory):
    """The folder of what a machine remembers of its jobs; no driver outlives the test."""
    yield tmp_path / "state"
    for process in psutil.process_iter(["cmdline", "environ"]):
        place = (process.info["environ"] or {}).get("BGMATCH_STATE", "")
        ours = place.startswith(str(tmp_path_factory.getbasetemp()))
        if ours and "bgmatch_dask.service.jobs.driver" in (process.info["cmdline"] or []):
            with suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture(scope="module")
def alone(simulated, tmp_path_factory):
    """The products of a run on its own, without a cluster, by name."""
    from bgmatch_dask.pipeline.plan import make_plan
    from bgmatch_dask.pipeline.run import run_tract

    store = tmp_path_factory.mktemp("alone") / "a.zarr"
    run_tract(make_plan(make_job(simulated / "warps", store)))
    return products(store)


def products(store: Path, run: str = "main") -> dict[str, bytes]:
    """Return the bytes of all pixels, offsets and coadds."""
    folders = ("direct", "superpixels", f"match/{run}", "coadd")
    files = [f for name in folders for f in sorted((store / name).rglob("*")) if f.is_file()]
    assert len(files) > 50
    return {str(f.relative_to(store)): f.read_bytes() for f in files}


def job_file(folder: Path, simulated: Path, store: str = "tract.zarr", **more) -> Path:
    job = {
        "inputs": {"paths": [str(simulated / "warps")]},
        "store": {"url": str(folder / store)},
        "background": {"bin_size": 64},
        **more,
    }
    path = folder / f"{Path(store).stem}.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def submit(path: Path, state: Path, *words: str) -> str:
    done = bgmatch("submit", str(path), *words, "--json", state=state)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["id"]


def status_of(state: Path, *words: str) -> dict:
    done = bgmatch("status", *words, "--json", state=state)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def status_in_store(store: Path) -> dict:
    record = JobFiles(RunPlace(Location.of(str(store)).url, "main")).record()
    return from_stores([record])[0].to_json()


def wait_for(store: Path, *states: str) -> dict:
    wait_until(lambda: status_in_store(store)["state"] in {*states, *OVER}, f"{states}")
    found = status_in_store(store)
    assert found["state"] in states, found
    return found


def at_work(store: Path) -> bool:
    """Whether the driver says that it runs, and a stage has begun."""
    found = status_in_store(store)
    begun = (found["runs"][0]["board"] or {}).get("stages")
    return found["state"] == "running" and bool(begun)


def test_a_job_outlives_its_submitter_and_a_worker(processes, simulated, alone, tmp_path, state):
    path = job_file(tmp_path, simulated)
    store = tmp_path / "tract.zarr"
    words = ["submit", str(path), "--scheduler", processes.address]
    with processes.held():
        submitter = subprocess.Popen(
            [sys.executable, "-c", STAYS, *words],
            env={**os.environ, "BGMATCH_STATE": str(state)},
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        job = submitter.stdout.readline().decode().strip()
        assert submitter.poll() is None
        os.killpg(submitter.pid, signal.SIGKILL)
        submitter.wait()
        submitter.stdout.close()
        # What a second shell sees, with nothing but the identifier, the store, or the scheduler.
        wait_until(lambda: at_work(store), "the first units")
        assert status_of(state, job)["state"] == "running"
        end(processes.workers.pop(0))
        assert status_of(state / "none", "--store", str(store))["state"] == "running"
        processes.add_worker()
    found = wait_for(store, "finished")
    assert found["id"] == job
    assert [s["done"] == s["total"] for s in found["runs"][0]["board"]["stages"]] == [True] * 5
    assert products(store) == alone
    listed = bgmatch("jobs", "--scheduler", processes.address, "--json", state=state / "none")
    assert {j["id"]: j["state"] for j in json.loads(listed.stdout)}[job] == "finished"
    logs = bgmatch("logs", job, state=state).stdout
    assert "ingest: done in" in logs
    assert "finished: report:" in logs


STAYS = """
import sys, time
from typer.testing import CliRunner
from bgmatch_dask.cli.main import app
print(CliRunner().invoke(app, sys.argv[1:]).output.strip(), flush=True)
time.sleep(600)
"""


def test_a_killed_driver_is_told_and_resumed(processes, simulated, alone, tmp_path, state):
    store = tmp_path / "tract.zarr"
    with processes.held():
        job = submit(job_file(tmp_path, simulated), state, "--scheduler", processes.address)
        wait_until(lambda: at_work(store), "the first units")
        os.kill(status_in_store(store)["driver"]["pid"], signal.SIGKILL)
        wait_until(lambda: status_in_store(store)["state"] == "interrupted", "the truth")
    found = status_of(state, job)
    assert (found["state"], found["text"]) == (
        "interrupted",
        f"interrupted: run bgmatch resume {job}",
    )
    with processes.held():
        assert bgmatch("resume", job, state=state).stdout.strip() == job
        wait_until(lambda: status_in_store(store)["state"] == "running", "the new driver")
        assert bgmatch("resume", job, state=state).stderr.startswith("bgmatch: [job-running]")
    watched = bgmatch("watch", job[:-2], state=state)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert f"job        {job}: finished" in watched.stdout
    found = status_of(state, job)
    assert (found["state"], found["attempt"]) == ("finished", 2)
    assert products(store) == alone


def test_two_jobs_at_once_give_the_bytes_of_a_lone_run(
    processes, simulated, alone, tmp_path, state
):
    """Two jobs, one of which has two tracts, on one scheduler."""
    stores = [tmp_path / name for name in ("one.zarr", "two.zarr", "three.zarr")]
    tracts = [{"store": {"url": str(store)}} for store in stores[1:]]
    first = submit(
        job_file(tmp_path, simulated, "one.zarr"), state, "--scheduler", processes.address
    )
    path = job_file(tmp_path, simulated, "both.zarr", tracts=tracts)
    second = submit(path, state, "--scheduler", processes.address)
    for store in stores:
        wait_for(store, "finished")
    assert {status_of(state, job)["state"] for job in (first, second)} == {"finished"}
    assert [Path(run["store"]).name for run in status_of(state, second)["runs"]] == [
        "two.zarr",
        "three.zarr",
    ]
    for store in stores:
        assert products(store) == alone


def test_a_job_is_cancelled_cleanly_and_resumed(processes, simulated, alone, tmp_path, state):
    store = tmp_path / "tract.zarr"
    with processes.held():
        job = submit(job_file(tmp_path, simulated), state, "--scheduler", processes.address)
        wait_until(lambda: at_work(store), "the first units")
        # No unit ends while it is cancelled.
        cancelled = bgmatch("cancel", "--store", str(store), state=state)
        assert cancelled.stdout.split()[:2] == [job, "cancelled"]
    found = status_in_store(store)
    assert (found["state"], found["text"]) == (
        "cancelled",
        f"cancelled; to go on: bgmatch resume {job}",
    )
    assert not Location.of(str(store)).exists("runs/main/commit.json")
    assert bgmatch("resume", "--store", str(store), state=state).returncode == 0
    wait_for(store, "finished")
    assert products(store) == alone


def test_a_local_job_that_fails_says_why_and_is_resumed(simulated, alone, tmp_path, state):
    store = tmp_path / "tract.zarr"
    path = job_file(tmp_path, simulated, inputs={"paths": [str(tmp_path / "late")]})
    submit(path, state)
    found = wait_for(store, "failed")
    assert found["text"].startswith("[")
    assert str(tmp_path / "late") in found["text"]
    assert bgmatch("watch", state=state).returncode == 1
    (tmp_path / "late").symlink_to(simulated / "warps")
    assert bgmatch("resume", state=state).returncode == 0
    wait_for(store, "finished")
    assert products(store) == alone


def test_a_place_that_refuses_the_job_is_told_to_the_submitter(simulated, tmp_path, state):
    (tmp_path / "file").write_text("no folder")
    path = job_file(tmp_path, simulated, "file/tract.zarr")
    refused = bgmatch("submit", str(path), state=state)
    assert refused.returncode == 1
    assert refused.stderr.startswith("bgmatch: [store-"), refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_silent_driver_of_another_machine_is_watched_before_it_is_given_up(tiny_job):
    files, record, beat = tiny_job
    elsewhere = {**beat.owner, "place": "another machine"}
    old = type(beat)(**{**beat.to_json(), "owner": elsewhere, "time": time.time() - 3600})
    files.write_beat(old)
    assert from_stores([record], pause=0.0)[0].state == "interrupted"
    # A clock that is an hour off, and a driver that beats while it is watched.
    with ExitStack() as stack:
        import threading

        over = threading.Event()
        thread = threading.Thread(target=_keep_beating, args=(files, old, over))
        thread.start()
        stack.callback(thread.join)
        stack.callback(over.set)
        assert from_stores([record], pause=60.0)[0].state == "running"


def _keep_beating(files, beat, over):
    number = beat.number
    while not over.wait(0.05):
        number += 1
        files.write_beat(type(beat)(**{**beat.to_json(), "number": number}))


@pytest.fixture
def tiny_job(tmp_path):
    from dataclasses import replace

    from bgmatch_dask.config import load_config
    from bgmatch_dask.service.jobs.record import Beat, new_record
    from bgmatch_dask.store.owner import identity

    record = new_record([load_config(values={"store": {"url": str(tmp_path / "t.zarr")}})])
    beat = Beat(record.id, 1, "running", time=time.time(), owner=identity())
    files = JobFiles(record.runs[0])
    files.write_record(record)
    files.write_beat(beat)
    return files, record, replace(beat, number=1)


def test_a_driver_known_to_be_dead_needs_no_watching(tiny_job):
    files, record, beat = tiny_job
    assert from_stores([record])[0].state == "running"
    files.write_beat(type(beat)(**{**beat.to_json(), "owner": {**beat.owner, "born": "1"}}))
    found = from_stores([record], pause=1e6)[0]
    assert (found.state, found.text) == (
        "interrupted",
        f"interrupted: run bgmatch resume {record.id}",
    )


def test_the_age_of_a_post_is_that_of_the_schedulers_clock(tiny_job):
    _, record, beat = tiny_job
    elsewhere = {**beat.to_json(), "owner": {}, "time": 0.0}
    entry = {"record": record.to_json(), "runs": [{"beat": elsewhere, "board": None, "log": ""}]}
    assert from_post({**entry, "age": 3.0}).state == "running"
    assert from_post({**entry, "age": 300.0}).state == "interrupted"


def test_a_job_that_nobody_knows(tmp_path):
    none = bgmatch("status", "20990101", state=tmp_path)
    assert (none.returncode, none.stdout) == (2, "")
    assert "[job-unknown]" in none.stderr
    assert bgmatch("jobs", state=tmp_path).stdout == "no jobs\n"


def test_tracts_override_the_rest_of_the_job_file(tmp_path):
    from bgmatch_dask.config import load_job

    path = tmp_path / "job.yaml"
    tracts = [{"store": {"url": "a.zarr"}}, {"store": {"url": "b.zarr"}, "run": "deep"}]
    path.write_text(yaml.safe_dump({"match": {"order": 1}, "tracts": tracts}))
    first, second = load_job(path, ["background.bin_size=32"])
    assert (first.store.url, second.store.url) == ("a.zarr", "b.zarr")
    assert (first.run, second.run) == ("main", "deep")
    assert {c.match.order for c in (first, second)} == {1}
    assert {c.background.bin_size for c in (first, second)} == {32}


@pytest.mark.parametrize(
    "tracts",
    [[], "a.zarr", [{"run": "a"}, {"run": "a"}], [{"cluster": {"workers": 3}}]],
    ids=["none", "text", "same", "cluster"],
)
def test_tracts_that_make_no_job(tmp_path, tracts):
    from bgmatch_dask.config import load_job

    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({"tracts": tracts}))
    with pytest.raises(ConfigError) as refused:
        load_job(path)
    assert refused.value.code == "job-tracts"
