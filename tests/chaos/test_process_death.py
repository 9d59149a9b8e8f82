"""Processes that die or hang at any moment: the products are those of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path

import dask
import pytest
import yaml
from distributed.chaos import KillWorker

from bgmatch_dask.config import ClusterConfig
from bgmatch_dask.errors import BgmatchError, ClusterError
from bgmatch_dask.pipeline.engine import DaskEngine, SerialEngine
from bgmatch_dask.pipeline.events import StageStarted, UnitDone
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.resume import stored_config
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.pipeline.verify import verify_store
from bgmatch_dask.service.cluster import connect
from bgmatch_dask.store import Ledger, Location
from tests.chaos.driver import drive, interrupt_often
from tests.chaos.tract import tiny_job

ROOT = Path(__file__).parents[2]
UNITS = {"ingest": 7, "difference": 2, "match": 7, "coadd": 2}
KILLS = 10
LOST = {"segfault": "1 h", "sys.exit": "1 s"}
"""After how long Dask replaces a lost worker together with its nanny.

It counts from each death, and then looks whether the worker is gone at that moment, however often
it came back in between: one that a nanny starts again must not be counted at all.
"""


@pytest.fixture
def job(warps, tmp_path):
    return tiny_job(warps, tmp_path / "tract.zarr")


@pytest.fixture
def place(job):
    return Location.of(job.store.url)


def receipts(place):
    """Return the units that the ledger knows to be finished."""
    ledger = Ledger(place, "main")
    return {(stage, unit) for stage in UNITS for unit in ledger.read(stage)}


class Watcher:
    """Counts the units that are done, and acts at the first unit of each stage."""

    def __init__(self, act=lambda stage: None, pause=0.0):
        self.done = Counter()
        self.act = act
        self.pause = pause
        self._seen = set()

    def __call__(self, event):
        if isinstance(event, UnitDone):
            self.done[event.stage, event.unit] += 1
            if event.stage not in self._seen:
                self._seen.add(event.stage)
                self.act(event.stage)
            time.sleep(self.pause)

    @property
    def stages(self):
        return Counter(stage for stage, _ in self.done.elements())


@pytest.fixture(scope="module")
def drivers():
    """Processes that have loaded all that a driver needs, which takes most of its time."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.chaos.driver"])
    return context


def start_driver(drivers, config, *more, act=drive):
    reader, writer = drivers.Pipe(duplex=False)
    process = drivers.Process(target=act, args=(str(config), writer, *more))
    process.start()
    writer.close()
    return process, reader


def told(reader):
    """Yield what a driver tells until it ends, also in the middle of a word."""
    with reader, suppress(EOFError, OSError):
        while True:
            yield reader.recv()


def units_of(process, reader):
    """Wait for the end of a driver; return the units that it did, and whether it finished."""
    done, finished = [], False
    for words in told(reader):
        finished |= words[0] == "finished"
        if words[0] == "done":
            done.append(words[1:])
    process.join()
    assert process.exitcode == (0 if finished else -signal.SIGKILL)
    process.close()
    return done, finished


def test_a_driver_killed_at_ten_moments_goes_on_each_time(drivers, job, place, tmp_path, as_calm):
    moments = random.Random(2026)
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(job.model_dump(mode="json")))
    runs: Counter = Counter()
    for _ in range(KILLS):
        before = receipts(place)
        moment = moments.randint(1, 4), moments.uniform(0, 0.05)
        done, finished = units_of(*start_driver(drivers, config, *moment))
        assert not finished
        assert not before & set(done), "a finished unit was done again"
        runs.update(done)
        assert not place.exists("runs/main/commit.json")
    before = receipts(place)
    assert before, "ten drivers have finished no unit"
    done, finished = units_of(*start_driver(drivers, config, 0, 0.0))
    assert finished
    assert not before & set(done)
    as_calm(place)
    runs.update(done)
    assert {stage for stage, _ in runs} == set(UNITS)
    # A unit may be done twice when its driver dies before the receipt is written, never more
    # often than that: receipts follow at once.
    assert sum(runs.values()) <= sum(UNITS.values()) + 2 * KILLS


def test_interrupts_at_any_moment_leave_a_process_that_can_go_on(
    drivers, job, place, tmp_path, as_calm
):
    """As in a notebook, whose process lives on: no lock stays, nothing is lost."""
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(job.model_dump(mode="json")))
    process, reader = start_driver(drivers, config, 25, 0.25, act=interrupt_often)
    ((_, ends),) = told(reader)
    process.join()
    process.close()
    assert ends.keys() <= {"KeyboardInterrupt()", "finished"}
    assert ends["KeyboardInterrupt()"]
    assert not list(place.list("lock"))
    finish(place, as_calm)
    assert verify_store(place).damages == ()


@pytest.fixture(scope="module")
def cluster():
    """Two workers with nannies, which start again whoever dies."""
    settings = {
        "distributed.scheduler.allowed-failures": 30,
        "distributed.deploy.lost-worker-timeout": LOST["segfault"],
    }
    with dask.config.set(settings), connect(ClusterConfig(workers=2)) as client:
        yield client


def worker_pids(client):
    client.wait_for_workers(2, timeout=200)
    return sorted(client.run(os.getpid).values())


def test_a_worker_killed_in_each_stage_changes_nothing(job, place, cluster, as_calm):
    killed = {}

    def kill(stage):
        await_gone(cluster, killed.values())  # asking a dead one would be an error
        worker, pid = next(iter(cluster.run(os.getpid).items()))
        killed[stage] = worker
        os.kill(pid, signal.SIGKILL)

    watcher = Watcher(kill)
    run_tract(make_plan(job), DaskEngine(cluster), (watcher,))
    await_gone(cluster, killed.values())
    assert list(killed) == list(UNITS)
    assert watcher.stages == UNITS
    assert set(watcher.done.values()) == {1}
    as_calm(place)


async def give_up_silent_workers(dask_scheduler):
    """Let the scheduler look now, and with less patience than its five minutes."""
    patience, dask_scheduler.worker_ttl = dask_scheduler.worker_ttl, 6
    try:
        await dask_scheduler.check_worker_ttl()
    finally:
        dask_scheduler.worker_ttl = patience


def test_a_worker_that_hangs_is_given_up(job, place, cluster, as_calm):
    stopped, over = [], threading.Event()

    def look():
        while not over.wait(1):
            cluster.run_on_scheduler(give_up_silent_workers)

    def stop(stage):
        if stage == "ingest":
            stopped.append(worker_pids(cluster)[0])
            os.kill(stopped[0], signal.SIGSTOP)
            looking.start()

    looking = threading.Thread(target=look)
    try:
        run_tract(make_plan(job), DaskEngine(cluster), (Watcher(stop),))
    finally:
        over.set()
        looking.join()
        with suppress(ProcessLookupError):
            os.kill(stopped[0], signal.SIGKILL)
    as_calm(place)


def forget_chaos(dask_scheduler):
    """Let the workers that come from now on live."""
    del dask_scheduler.worker_plugins["chaos"]


def await_gone(client, workers):
    end = time.monotonic() + 120
    while gone := set(workers) & set(client.nthreads()):
        assert time.monotonic() < end, f"{gone} live on"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("mode", "stages"), [("segfault", tuple(UNITS)), ("sys.exit", ("difference",))]
)
def test_workers_that_die_at_random_change_nothing(job, place, cluster, as_calm, mode, stages):
    """Those that crash are started again; those that close themselves are replaced."""
    doomed = []

    def doom(stage):
        if stage not in stages:
            return
        # One that dies while it is told so would be an error; and newcomers need their time.
        await_gone(cluster, doomed)
        worker_pids(cluster)
        for number, worker in enumerate(sorted(cluster.nthreads())):
            cluster.run(random.seed, number, workers=[worker])
            doomed.append(worker)
        cluster.register_plugin(KillWorker("300 ms", mode=mode), name="chaos")
        cluster.run_on_scheduler(forget_chaos)

    watcher = Watcher(doom)
    with dask.config.set({"distributed.deploy.lost-worker-timeout": LOST[mode]}):
        run_tract(make_plan(job), DaskEngine(cluster), (watcher,))
        await_gone(cluster, doomed)
        worker_pids(cluster)
    assert len(doomed) == len(set(doomed)) == 2 * len(stages)
    assert watcher.stages == UNITS
    assert set(watcher.done.values()) == {1}
    as_calm(place)


def test_results_that_are_here_outlive_their_workers(cluster):
    worker_pids(cluster)
    results = DaskEngine(cluster).map(abs, [-1, -2, -3, -4], "ingest")
    found = [next(results)]
    while any(cluster.processing().values()):
        time.sleep(0.05)
    time.sleep(0.5)  # on their way to this process
    workers = list(cluster.nthreads())
    for pid in cluster.run(os.getpid).values():
        os.kill(pid, signal.SIGKILL)
    await_gone(cluster, workers)
    assert sorted([*found, *results]) == [1, 2, 3, 4]


def test_workers_that_took_the_place_of_others_do_not_hear_ctrl_c(cluster):
    pids = worker_pids(cluster)
    for pid in pids:
        os.kill(pid, signal.SIGINT)
    assert sorted(DaskEngine(cluster).map(abs, [-1, -2], "ingest")) == [1, 2]
    assert worker_pids(cluster) == pids


@contextmanager
def started(*command, environment=None):
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        yield process
    finally:
        # Whatever is left of its group, workers included.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def command(job, *more):
    return (
        *("bgmatch_dask", "run", *job.inputs.paths, "--store", job.store.url, "--workers", "1"),
        *("--set", "background.bin_size=32", "--set", "match.write_warps=true"),
        *("--set", "store.receipts_every=0.02", *more),
    )


def await_line(stream, start):
    for line in stream:
        if line.startswith(start):
            return line
    raise AssertionError(f"no line begins with {start!r}")


def test_a_killed_scheduler_is_told_and_the_run_goes_on_elsewhere(job, place, tmp_path, as_calm):
    file = str(tmp_path / "scheduler.json")
    with started(
        *("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"),
        *("--dashboard-address", "127.0.0.1:0", "--scheduler-file", file),
    ) as scheduler:
        line = await_line(scheduler.stderr, "")
        while "Scheduler at:" not in line:
            line = await_line(scheduler.stderr, "")
        address = line.split("Scheduler at:")[1].strip()
        worker = ("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard")
        with (
            started(*worker, "--local-directory", str(tmp_path)),
            started(*command(job, "--scheduler", address)) as driver,
        ):
            await_line(driver.stderr, "ingest:")
            os.kill(scheduler.pid, signal.SIGKILL)
            _, error = driver.communicate(timeout=200)
    assert driver.returncode == 1
    # The library may log lines of its own after ours, and traces through its own code.
    assert "[scheduler-lost]" in error
    assert str(ROOT / "bgmatch_dask") not in error
    finish(place, as_calm)


def finish(place, as_calm):
    """Go on with a run in this process; what has a receipt is not done again."""
    before = receipts(place)
    watcher = Watcher()
    run_tract(make_plan(stored_config(place, "main")), None, (watcher,))
    assert not before & set(watcher.done)
    as_calm(place)


@pytest.mark.parametrize(
    ("signals", "code"), [((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGTERM,), 143)]
)
def test_signals_end_the_driver_and_lose_nothing(job, place, as_calm, signals, code):
    with started(*command(job)) as driver:
        await_line(driver.stderr, "ingest:")
        for number in signals:
            os.kill(driver.pid, number)
            time.sleep(0.2)
        _, error = driver.communicate(timeout=200)
    assert driver.returncode == code, error
    assert not place.exists("runs/main/commit.json")
    finish(place, as_calm)


def take_memory(_):
    """Take more and more memory, slowly enough to be seen doing it; then wait to be ended."""
    held = []
    while True:
        if len(held) < 60:
            held.append(b"x" * 20_000_000)
        time.sleep(0.02)


def test_a_worker_out_of_memory_is_named_with_its_unit():
    settings = {"distributed.scheduler.allowed-failures": 0}
    limited = ClusterConfig(workers=1, memory_limit="600MB")
    with dask.config.set(settings), connect(limited) as client:
        engine = DaskEngine(client)
        assert engine.worker_limit() == 600_000_000
        with pytest.raises(ClusterError) as caught:
            list(engine.map(take_memory, ["1214/3"], "ingest"))
    assert caught.value.code == "worker-memory"
    assert "1214/3" in caught.value.what
    assert "workers have 0.60 GB" in caught.value.what


class SmallEngine(SerialEngine):
    """An engine whose workers are too small for any work."""

    def worker_limit(self):
        return 10_000


def test_work_that_cannot_fit_is_refused_before_it_begins(job, place):
    watcher = Watcher()
    with pytest.raises(BgmatchError) as caught:
        run_tract(make_plan(job), SmallEngine(), (watcher,))
    assert caught.value.code == "memory-short"
    assert not watcher.done
    assert not place.exists("zarr.json")


def test_events_name_every_stage(job):
    started_stages = []
    run_tract(
        make_plan(job),
        None,
        (lambda e: started_stages.append(e.stage) if isinstance(e, StageStarted) else None,),
    )
    assert [s for s in started_stages if s in UNITS] == list(UNITS)
