"""Part `scaling`: workers, visits, patches, and what a thousand workers would wait for."""

from __future__ import annotations

import heapq
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from benchmarks.job import (
    JobMeasure,
    cluster,
    job_config,
    run_job,
    simulate_all,
    simulated,
    warm_up,
)
from benchmarks.measure import in_process, processes
from benchmarks.progress import Progress
from benchmarks.results import Check, Figure, PartResult, Plot, Table, spread
from benchmarks.sizes import Size
from benchmarks.start import start_up
from benchmarks.two_processes import gains
from bgmatch_dask.pipeline.engine import DaskEngine
from bgmatch_dask.warps.simulation import SimulationConfig

if TYPE_CHECKING:
    from distributed import Client

__all__ = ("makespan", "run")

_TEXT = (
    "The same job on one worker and on two; jobs of more visits, and of more patches, on two "
    "workers; units that do nothing, to time the scheduler alone; and a plan of a large tract "
    "that is played through on 1000 workers with the durations and the overhead measured here. "
    "Cost per warp: processor seconds of workers and driver, over the number of warps."
)
_WORKERS = 1000
_LARGE = (81, 100)
"""Patches and visits of the tract that is played through."""
_WINDOW = 3
_LEAST = 8
"""Superpixels along the side of a tract that has any overlaps."""


def run(size: Size, work: Path, progress: Progress) -> PartResult:
    """Measure how the job grows."""
    strong, patches_of, visits_of = _tracts(size)
    progress.expect(8 + len(visits_of))
    progress.step("simulating warps")
    simulate_all(work, [strong, *patches_of.values(), *visits_of.values()])
    with cluster(2) as client:
        progress.step("one worker and two")
        one, two = _one_and_two(client, strong, work, size.strong_repeats)
        progress.step("more patches")
        # The first job on new tracts uses memory for the first time: it does not count.
        patches = {
            n: [_job(client, tract, work) for _ in range(2)][1] for n, tract in patches_of.items()
        }
        progress.step("units that do nothing")
        overhead = _overhead(client, size.noop_units)
    visits = {}
    for n, tract in visits_of.items():
        progress.step(f"{n} visits")
        visits[n] = _fresh_job(tract, work)
    progress.step("the most that two processes gain")
    with processes(2) as pool:
        most = gains(pool, size.probe, size.probe_pause)
    progress.step("start of programs")
    begin, begin_table = start_up(2, size.starts)
    for store in work.glob("scaling-*.zarr"):
        shutil.rmtree(store)
    gain = statistics.median(j.after_ingest() for j in one) / statistics.median(
        j.after_ingest() for j in two
    )
    # What else goes on in a machine only adds time.
    quickest = min(j.after_ingest() for j in one) / min(j.after_ingest() for j in two)
    whole = statistics.median(j.seconds for j in one) / statistics.median(j.seconds for j in two)
    progress.step("the solution of a large tract")
    plan = _plan(two[-1], [*patches.values(), *visits.values()], overhead)
    few, many = size.many_visits[0], size.many_visits[-1]
    memory = visits[many].peak / visits[few].peak - 1
    small, large = size.many_patches[0], size.many_patches[-1]
    cost = _cost(patches[large]) / _cost(patches[small]) - 1
    figures = (
        _one("scaling.two_over_one_after_ingest", gain, "x", "higher", relative=True),
        _one("scaling.two_over_one_quickest", quickest, "x", "higher", relative=True),
        _one("scaling.two_over_one_whole", whole, "x", "higher", relative=True),
        _one("scaling.memory_growth_visits", memory, "x", "lower", relative=True),
        _one("scaling.cost_growth_patches", cost, "x", "lower", relative=True),
        _one("scaling.overhead_per_unit", 1000 * overhead, "ms", "lower"),
        *begin,
    )
    checks = (
        Check(
            "Two workers over one, stages after ingest",
            gain,
            1.8,
            at_most=False,
            judged=size.name == "full",
        ),
        Check(f"Growth of a worker's memory from {few} to {many} visits", abs(memory), 0.10),
        Check(
            f"Change of the cost per warp from {small} × {small} to {large} × {large} patches",
            abs(cost),
            0.15,
            judged=size.name == "full",
        ),
    )
    return PartResult(
        "scaling",
        "How it grows",
        _TEXT,
        figures,
        (
            _strong_table(one[-1], two[-1]),
            most,
            _growth_table("Visits", visits),
            _growth_table("Patches along a side", patches),
            plan,
            begin_table,
        ),
        _plots(visits, patches),
        checks,
    )


def _one(key: str, value: float, unit: str, better: str, *, relative: bool = False) -> Figure:
    return spread(key, [value], unit, better, relative=relative)


def _tract(visits: int, side: int, patch: int) -> SimulationConfig:
    return SimulationConfig(
        visits=visits,
        patches=(side, side),
        patch_size=patch,
        border=patch // 20,
        compressed=True,
    )


def _tracts(
    size: Size,
) -> tuple[SimulationConfig, dict[int, SimulationConfig], dict[int, SimulationConfig]]:
    """Return the tract for one and two workers, those by patches, and those by visits."""
    return (
        size.stage_tract,
        {n: _tract(4, n, size.patches_patch) for n in size.many_patches},
        {n: _tract(n, 2, size.visits_patch) for n in size.many_visits},
    )


def _job(client: Client, config: SimulationConfig, work: Path) -> JobMeasure:
    tract = simulated(work, config)
    # File systems look past what was just deleted, which a run without a run before it is spared.
    store = work / f"scaling-{time.monotonic_ns()}.zarr"
    return run_job(client, job_config(tract, store))


def _one_and_two(
    pair: Client, config: SimulationConfig, work: Path, repeats: int
) -> tuple[list[JobMeasure], list[JobMeasure]]:
    """Run a job on one worker and on two, in turns: machines are quicker at some times."""
    jobs: tuple[list[JobMeasure], list[JobMeasure]] = ([], [])
    with cluster(1) as single:
        for client in (single, pair):
            warm_up(client, work)
        for _ in range(1 + repeats):
            for client, done in zip((single, pair), jobs, strict=True):
                done.append(_job(client, config, work))
    return jobs[0][1:], jobs[1][1:]


def _fresh_job(tract: SimulationConfig, work: Path) -> JobMeasure:
    """Run a job on workers that have worked for no other: they keep the memory that they had."""
    with cluster(2) as client:
        warm_up(client, work)
        return _job(client, tract, work)


def _units(job: JobMeasure) -> int:
    return job.stages["ingest"].units


def _cost(job: JobMeasure) -> float:
    """Return the processor seconds of workers and driver per warp."""
    return job.cpu / _units(job)


def _noop(number: int) -> int:
    return number


def _overhead(client: Client, units: int) -> float:
    """Return the wall time per unit that does nothing [s]."""
    engine = DaskEngine(client)
    list(engine.map(_noop, range(50), "warm"))
    start = time.perf_counter()
    done = sum(1 for _ in engine.map(_noop, range(units), "noop"))
    return (time.perf_counter() - start) / done


def makespan(durations: Sequence[float], workers: int, overhead: float, window: int) -> float:
    """Play a stage through: one scheduler hands units to workers that run one at a time.

    Parameters
    ----------
    durations
        Of every unit [s].
    workers
        Number of workers.
    overhead
        Time that the scheduler spends on a unit; it does nothing else meanwhile [s].
    window
        Units in flight per worker.

    Returns
    -------
    float
        When the last unit ends [s].
    """
    free = [0.0] * min(workers, max(len(durations), 1))
    in_flight: list[float] = []
    clock = last = 0.0
    for duration in durations:
        if len(in_flight) >= window * workers:
            clock = max(clock, heapq.heappop(in_flight))
        clock += overhead
        end = max(clock, heapq.heappop(free)) + duration
        heapq.heappush(free, end)
        heapq.heappush(in_flight, end)
        last = max(last, end)
    return last


def _plan(job: JobMeasure, others: Sequence[JobMeasure], overhead: float) -> Table:
    """Return the predicted stages of a large tract on many workers, and what holds them up."""
    n_patches, n_visits = _LARGE
    rows: list[tuple[str, int | None, float, str]] = []
    warps = _units(job)
    for name, stage in job.stages.items():
        if name == "ingest":
            durations = _repeated(stage.durations, n_patches * n_visits)
        elif stage.units:
            # A unit of a later stage is a patch: its time grows with its visits.
            scale = n_visits / (warps / stage.units)
            durations = _repeated([scale * d for d in stage.durations], n_patches)
        elif name == "solve":
            rows.append((name, None, _solution(job, n_patches, n_visits), "the driver"))
            continue
        else:
            units = n_patches * n_visits
            bins = units * _superpixels(job) / warps
            taken = _continued([job, *others], name, units, bins)
            rows.append((name, None, taken, "the driver"))
            continue
        taken = makespan(durations, _WORKERS, overhead, _WINDOW)
        work, waits = sum(durations) / _WORKERS, len(durations) * overhead
        longest = max(durations)
        reasons = {"the scheduler": waits, "the longest unit": longest, "the workers": work}
        rows.append((name, len(durations), taken, max(reasons, key=lambda r: reasons[r])))
    total = sum(row[2] for row in rows)
    bottleneck = max(rows, key=lambda row: row[2])
    rows.append(("whole job", None, total, f"{bottleneck[0]}: {bottleneck[3]}"))
    return Table(
        f"{n_visits} visits on {n_patches} patches, played through on {_WORKERS} workers",
        ("stage", "units", "s", "held up by"),
        tuple(rows),
        "Units take as long as here, on warps of the size measured here. Storage is taken to keep "
        "up. The solution of that tract is measured, on made-up sums. Other stages of the driver "
        "are continued in warps and superpixels × visits through all jobs measured here.",
    )


def _solution(job: JobMeasure, n_patches: int, n_visits: int) -> float:
    """Return the seconds in which a driver solves for a tract of such patches."""
    side = round((n_patches * _superpixels(job) / _units(job)) ** 0.5)
    found = in_process(
        "benchmarks.solver_scale:seconds_of", {"visits": n_visits, "superpixels": max(side, _LEAST)}
    )
    if found.error:
        raise RuntimeError(found.error)
    return float(found.value)


def _superpixels(job: JobMeasure) -> float:
    """Return the superpixels of all warps."""
    return job.pixels / job.config.background.bin_size**2


def _continued(jobs: Sequence[JobMeasure], stage: str, units: float, bins: float) -> float:
    """Return the seconds of a stage of the driver at some number of warps and of superpixels."""
    terms = np.array([(1.0, _units(job), _superpixels(job)) for job in jobs])
    taken = np.array([job.stages[stage].seconds for job in jobs])
    # No part of the time is less than nothing, and none is told from jobs of one size.
    shares, _ = nnls(terms / terms.max(axis=0), taken)
    return float(shares @ (np.array([1.0, units, bins]) / terms.max(axis=0)))


def _repeated(durations: Sequence[float], count: int) -> list[float]:
    return [durations[i % len(durations)] for i in range(count)]


def _strong_table(one: JobMeasure, two: JobMeasure) -> Table:
    rows = tuple(
        (name, s.seconds, two.stages[name].seconds, s.seconds / two.stages[name].seconds)
        for name, s in one.stages.items()
    )
    return Table("One worker and two", ("stage", "one [s]", "two [s]", "gain ×"), rows)


def _growth_table(what: str, jobs: dict[int, JobMeasure]) -> Table:
    rows = tuple(
        (n, _units(job), job.seconds, 1000 * job.seconds / _units(job), 1000 * _cost(job), job.peak)
        for n, job in jobs.items()
    )
    columns = (what.lower(), "warps", "s", "ms per warp", "cost per warp [ms]", "peak MB")
    return Table(f"{what}, on two workers", columns, rows)


def _plots(visits: dict[int, JobMeasure], patches: dict[int, JobMeasure]) -> tuple[Plot, ...]:
    return (
        Plot(
            "Memory of a worker",
            "lines",
            "visits",
            "MB",
            {"peak": [(n, job.peak) for n, job in visits.items()]},
            note="Flat is the goal: no worker holds all visits.",
        ),
        Plot(
            "Cost per warp",
            "lines",
            "patches along a side",
            "ms",
            {"cost": [(n, 1000 * _cost(job)) for n, job in patches.items()]},
        ),
    )
