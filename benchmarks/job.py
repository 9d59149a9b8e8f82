"""Our own whole job on a simulated tract, metered stage by stage."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import peak_mb, processes, reset_peak
from bgmatch_dask.config import ClusterConfig, RunConfig, load_config
from bgmatch_dask.pipeline.engine import DaskEngine
from bgmatch_dask.pipeline.events import Event, StageEnded, StageStarted, UnitDone
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.service.cluster import connect
from bgmatch_dask.store import Location
from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract

if TYPE_CHECKING:
    from distributed import Client

__all__ = (
    "JobMeasure",
    "StageMeasure",
    "cluster",
    "job_config",
    "run_job",
    "simulate_all",
    "simulated",
    "usage",
    "warm_up",
)

_LARGE = 10**8
"""Pixels of all warps of a tract for which starting two processes is worth it."""


@dataclass(slots=True)
class StageMeasure:
    """What one stage of a job cost."""

    seconds: float
    """Wall time."""
    units: int
    """Units carried out."""
    unit_seconds: float
    """Wall time of all units on their workers."""
    peak: float
    """Largest peak memory of a worker [MB]."""
    read: float
    """Bytes that workers read, by file calls."""
    written: float
    """Bytes that workers wrote."""
    cpu: float = 0.0
    """Processor time of the workers [s]."""
    durations: tuple[float, ...] = ()
    """Wall time of each unit on its worker."""


@dataclass(slots=True)
class JobMeasure:
    """What one job cost."""

    location: Location
    """The store it made."""
    config: RunConfig
    """Its configuration."""
    seconds: float
    """Wall time of plan and run on workers that were up."""
    summary: dict[str, Any]
    """The summary of the run."""
    pixels: float
    """Pixels of all warps."""
    stages: dict[str, StageMeasure] = field(default_factory=dict)
    """By name, in order; stages of the driver have no units."""
    baseline: float = 0.0
    """Memory of a worker before the job [MB]."""
    driver_cpu: float = 0.0
    """Processor time of the driver with its scheduler [s]."""
    driver_peak: float = 0.0
    """Peak memory of the driver with its scheduler, and all that the benchmark holds [MB]."""

    @property
    def cpu(self) -> float:
        """Processor time of workers and driver [s]."""
        return self.driver_cpu + sum(stage.cpu for stage in self.stages.values())

    @property
    def peak(self) -> float:
        """Peak memory of a worker over the job [MB]."""
        return max(stage.peak for stage in self.stages.values())

    def after_ingest(self) -> float:
        """Wall time of all stages after ingest."""
        return sum(s.seconds for name, s in self.stages.items() if name != "ingest")


def simulated(work: Path, config: SimulationConfig, workers: int = 2) -> Path:
    """Return the folder of a simulated tract, made when it is not there yet."""
    names = (
        f"s{config.seed}-v{config.visits}-p{config.patches[0]}x{config.patches[1]}"
        f"-{config.patch_size}+{config.border}{'-gz' if config.compressed else ''}"
    )
    # The name says the usual settings; the digest says all of them.
    digest = hashlib.blake2b(repr(config).encode(), digest_size=4).hexdigest()
    folder = work / "tracts" / f"{names}-{digest}"
    if not (folder / "done").exists():
        simulate_tract(folder, config, workers=workers)
        (folder / "done").touch()
    return folder


def simulate_all(work: Path, configs: Iterable[SimulationConfig]) -> None:
    """Make simulated tracts that are not there yet: large ones by two processes, others by one."""
    wanted = sorted(set(configs), key=_pixels)
    while wanted and _pixels(wanted[-1]) > _LARGE:
        simulated(work, wanted.pop(), 2)
    with processes(2) as pool:
        list(pool.map(simulated, repeat(work), reversed(wanted), repeat(1)))


def _pixels(config: SimulationConfig) -> int:
    return config.visits * config.size**2


def job_config(tract: Path, store: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the configuration of a job with default settings."""
    values = {
        "inputs": {"paths": [str(tract / "warps")], "profile": "lsst"},
        "tract": {"label": "bench"},
        "store": {"url": str(store)},
    }
    return load_config(values=values, overrides=overrides)


@contextmanager
def cluster(workers: int) -> Iterator[Client]:
    """Yield a client of a local cluster whose workers are up."""
    with connect(ClusterConfig(workers=workers)) as client:
        client.wait_for_workers(workers)
        yield client


def warm_up(client: Client, work: Path) -> None:
    """Run a small job, so that compiled code and imports are loaded in every worker."""
    config = SimulationConfig(visits=3, patches=(4, 1), patch_size=64, border=8, compressed=True)
    tract = simulated(work, config)
    store = work / f"warm-{time.monotonic_ns()}.zarr"
    # Threads of storage and hubs of all workers start too: more units than workers.
    run_job(client, job_config(tract, store, ("background.bin_size=32",)))


def usage() -> dict[str, float]:
    """Return peak memory and bytes of this worker so far, and start the peak anew."""
    found = {"cpu": time.process_time(), "peak": peak_mb(), "read": 0.0, "written": 0.0}
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
        counters = dict(line.split(": ") for line in lines)
        found["read"], found["written"] = float(counters["rchar"]), float(counters["wchar"])
    except OSError:
        pass
    reset_peak()
    return found


class _Meter:
    """A listener that asks the workers at the end of each stage."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.stages: dict[str, StageMeasure] = {}
        self._units: dict[str, list[float]] = {}
        self._before: dict[str, dict[str, float]] = {}
        self.overhead = 0.0
        self.cpu = 0.0

    def __call__(self, event: Event) -> None:
        start, cpu = time.perf_counter(), time.process_time()
        if isinstance(event, StageStarted):
            self._before = self.client.run(usage)
        elif isinstance(event, UnitDone):
            self._units.setdefault(event.stage, []).append(event.seconds)
        elif isinstance(event, StageEnded):
            now = self.client.run(usage)
            durations = tuple(self._units.get(event.stage, ()))
            self.stages[event.stage] = StageMeasure(
                event.seconds,
                len(durations),
                sum(durations),
                max(found["peak"] for found in now.values()),
                sum(now[w]["read"] - self._before[w]["read"] for w in now),
                sum(now[w]["written"] - self._before[w]["written"] for w in now),
                sum(now[w]["cpu"] - self._before[w]["cpu"] for w in now),
                durations,
            )
        self.overhead += time.perf_counter() - start
        self.cpu += time.process_time() - cpu


def run_job(client: Client, config: RunConfig) -> JobMeasure:
    """Plan and run a job on workers that are up, and meter it."""
    meter = _Meter(client)
    reset_peak()
    baseline = max(found["peak"] for found in client.run(usage).values())
    start, cpu = time.perf_counter(), time.process_time()
    plan = make_plan(config)
    summary = run_tract(plan, DaskEngine(client), (meter,))
    wall = time.perf_counter() - start - meter.overhead
    height, width = plan.spec.geometry.patches.plane_shape
    pixels = float(len(plan.ingest) * height * width)
    return JobMeasure(
        plan.location,
        config,
        wall,
        summary,
        pixels,
        meter.stages,
        baseline,
        time.process_time() - cpu - meter.cpu,
        peak_mb(),
    )
