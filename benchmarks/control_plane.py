"""What the control plane costs: planning, scheduling and book-keeping of units that do nothing.

``python -m benchmarks.control_plane`` plans 200 visits on 10 x 10 patches (20,000 units), carries
them out as no-ops on a scheduler process with two worker processes, with all that a real run has
around its units (receipts, events, board), and prints the figures as JSON. Reading headers is not
in the planning time, because it is the inputs' own cost; it is measured on files beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Self
from unittest import mock

import psutil
from distributed import Client
from distributed.deploy.subprocess import SubprocessCluster

from bgmatch_dask.config import ClusterConfig, load_config
from bgmatch_dask.geometry import PatchGrid
from bgmatch_dask.pipeline.context import RunContext
from bgmatch_dask.pipeline.engine import DaskEngine
from bgmatch_dask.pipeline.events import Event, UnitDone
from bgmatch_dask.pipeline.headers import SpreadHeaders
from bgmatch_dask.pipeline.plan import TractPlan, make_plan
from bgmatch_dask.pipeline.tasks import IngestTask
from bgmatch_dask.service.board.feed import BoardFeed
from bgmatch_dask.service.board.plugin import board_link
from bgmatch_dask.service.cluster import connect
from bgmatch_dask.store import Ledger, Receipt
from bgmatch_dask.warps.catalogue import Catalogue, InputFile, describe_inputs
from bgmatch_dask.warps.profile import load_profile
from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract
from bgmatch_dask.warps.sources import Found

INNER, BORDER = 200, 20
HEADERS = 512
"""Headers that are read to measure what one takes."""
_FORGET_SECONDS = 30.0
"""How long to wait until the scheduler has forgotten what is done [s]."""


def measure(visits: int, side: int, workers: int = 2) -> dict[str, Any]:
    """Plan and carry out ``visits * side²`` units of nothing, and return the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warp = template(folder)
        inputs = files(warp, visits, side)
        start = time.perf_counter()
        plan = plan_of(folder, inputs)
        planning = time.perf_counter() - start
        with processes(workers) as client:
            return {
                "planning seconds": round(planning, 3),
                **headers(folder, client),
                **carry_out(plan, client),
            }


@contextmanager
def processes(workers: int) -> Iterator[Client]:
    """Yield a client of a scheduler process with worker processes of one thread each."""
    with (
        SubprocessCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as cluster,
        connect(ClusterConfig(kind="address", scheduler=cluster.scheduler_address)) as client,
    ):
        yield client


def headers(folder: Path, client: Client) -> dict[str, float]:
    """Return how long reading a header takes here, and in how short intervals workers do it."""
    paths = sorted(str(path) for path in (folder / "warps").glob("*.fits"))
    found = [Found(path) for path in paths] * (HEADERS // len(paths))
    profile = load_profile("lsst")
    figures = {}
    for name, describe in (
        ("here", describe_inputs),
        ("on workers", SpreadHeaders(DaskEngine(client))),
    ):
        # The first time, caches are filled and modules imported.
        for _ in range(2):
            start = time.perf_counter()
            n_read = len(list(describe(found, profile, 10**8)))
            each = (time.perf_counter() - start) / n_read
        figures[f"header milliseconds per file, {name}"] = round(1e3 * each, 3)
    return figures


def carry_out(plan: TractPlan, client: Client) -> dict[str, Any]:
    """Carry out the units of a plan as no-ops and return the figures."""
    engine = _CountingEngine(client)
    scheduler: Any = client.run_on_scheduler(os.getpid)  # type: ignore[no-untyped-call]
    with BoardFeed(plan, client) as feed, _Visitor(board_link(client, feed.key)) as visitor:
        meter = _Meter(len(plan.ingest), {scheduler: "scheduler", os.getpid(): "driver"})
        run = RunContext(plan, Ledger(plan.location, "main"), engine, (feed, meter))
        start, busy = time.perf_counter(), meter.processor_seconds()
        with run.told():
            receipts = run.run_units("ingest", nothing, plan.ingest)
        seconds, after = time.perf_counter() - start, meter.processor_seconds()
    held = _tasks_held(client)
    each = {f"processor milliseconds per unit, {n}": after[n] - busy[n] for n in after}
    return {
        "units": len(receipts),
        "milliseconds per unit": round(1e3 * seconds / len(receipts), 3),
        **{name: round(1e3 * value / len(receipts), 3) for name, value in each.items()},
        "most tasks in flight": engine.most,
        "tasks on the scheduler after it": held,
        **{f"{name} memory by quarter [MB]": sizes for name, sizes in meter.memory.items()},
        **visitor.figures(),
    }


class _CountingEngine(DaskEngine):
    """Notes how many tasks were in flight at most."""

    most = 0

    def _submit(self, running: Any, flying: dict[Any, Any], *rest: Any) -> None:  # noqa: ANN401
        super()._submit(running, flying, *rest)
        self.most = max(self.most, len(flying))


def nothing(task: IngestTask) -> Receipt:
    """Do no work, and say so as a real unit does."""
    return Receipt("ingest", task.unit, task.digest, figures={"n_valid": 1})


class _Meter:
    """Notes the memory of processes each time another quarter of the units is done."""

    def __init__(self, units: int, names: dict[int, str]) -> None:
        self._units, self._done = units, 0
        self._processes = {name: psutil.Process(pid) for pid, name in names.items()}
        self.memory: dict[str, list[float]] = {name: [] for name in self._processes}
        self._look()

    def __call__(self, event: Event) -> None:
        if not isinstance(event, UnitDone):
            return
        self._done += 1
        if self._done * 4 // self._units > (self._done - 1) * 4 // self._units:
            self._look()

    def processor_seconds(self) -> dict[str, float]:
        """Return the time that each process has computed so far [s]."""
        return {name: sum(p.cpu_times()[:2]) for name, p in self._processes.items()}

    def _look(self) -> None:
        for name, process in self._processes.items():
            self.memory[name].append(round(process.memory_info().rss / 1e6, 1))


class _Visitor:
    """Looks at the board once a second, as a browser does, and notes how long answers take."""

    def __init__(self, link: str) -> None:
        self._urls = [link.replace("?", f"{page}?") for page in ("board.json", "fragment.html")]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._waits: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(1.0):
            for url in self._urls:
                start = time.perf_counter()
                try:
                    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
                        answer.read()
                except urllib.error.HTTPError as error:
                    # Before its first event the scheduler does not know the board.
                    error.close()
                    continue
                self._waits.append(time.perf_counter() - start)

    def figures(self) -> dict[str, float | int]:
        """Return how long the answers took."""
        waits = self._waits or [0.0]
        return {
            "looks at the board": len(self._waits),
            "median milliseconds to its answer": round(1e3 * median(waits), 1),
            "most milliseconds to its answer": round(1e3 * max(waits), 1),
        }


def _tasks_held(client: Client) -> int:
    """Return how many tasks the scheduler holds once it has heard what it may forget."""
    held = 1
    end = time.monotonic() + _FORGET_SECONDS
    while held and time.monotonic() < end:
        time.sleep(0.05)
        held = int(client.run_on_scheduler(_n_tasks))  # type: ignore[no-untyped-call]
    return held


def _n_tasks(dask_scheduler: Any = None) -> int:  # noqa: ANN401
    return len(dask_scheduler.tasks)


def template(folder: Path) -> InputFile:
    """Write a few warps into a folder and return the description of one."""
    simulate_tract(
        folder, SimulationConfig(visits=2, patches=(2, 2), patch_size=INNER, border=BORDER)
    )
    first = min(str(path) for path in (folder / "warps").glob("*.fits"))
    ((_, warp),) = describe_inputs([Found(first)], load_profile("lsst"), 10**8)
    assert isinstance(warp, InputFile)
    return warp


def files(warp: InputFile, visits: int, side: int) -> Sequence[InputFile]:
    """Return descriptions of warps that do not exist, on a square of patches."""
    grid = PatchGrid(0, 0, INNER, INNER, BORDER, side, side)
    boxes = [grid.outer_box(patch) for patch in range(grid.n_patches)]
    return [
        replace(
            warp,
            path=f"/none/{visit}_{patch}.fits",
            visit=str(100_000 + visit),
            box=box,
            shape=box.shape,
        )
        for visit in range(visits)
        for patch, box in enumerate(boxes)
    ]


def plan_of(folder: Path, inputs: Sequence[InputFile]) -> TractPlan:
    """Plan inputs that do not exist, with a store in a folder."""
    values = {"inputs": {"paths": [str(folder)]}, "store": {"url": str(folder / "tract.zarr")}}
    catalogue = Catalogue(tuple(inputs), (), 0)
    with mock.patch("bgmatch_dask.pipeline.plan._scan", return_value=catalogue):
        return make_plan(load_config(values=values))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=200)
    parser.add_argument("--side", type=int, default=10, help="patches along each axis")
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.visits, chosen.side), indent=1))


if __name__ == "__main__":
    main()
