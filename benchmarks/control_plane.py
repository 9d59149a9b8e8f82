"""What the control plane costs: planning, scheduling and book-keeping of units that do nothing.

``python -m benchmarks.control_plane`` plans 200 visits on 10 x 10 patches (20,000 units), carries
them out as no-ops on two worker processes with all that a real run has around its units (receipts,
events, board), and prints the figures as JSON. Reading headers is not in the planning time, because
it is the inputs' own cost; it is measured on a few files beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from bgmatch_dask.config import ClusterConfig, load_config
from bgmatch_dask.geometry import PatchGrid
from bgmatch_dask.pipeline.context import RunContext
from bgmatch_dask.pipeline.engine import DaskEngine
from bgmatch_dask.pipeline.events import Event, UnitDone
from bgmatch_dask.pipeline.plan import TractPlan, make_plan
from bgmatch_dask.pipeline.tasks import IngestTask
from bgmatch_dask.service.board.feed import BoardFeed
from bgmatch_dask.service.cluster import connect
from bgmatch_dask.store import Ledger, Receipt
from bgmatch_dask.warps.catalogue import Catalogue, InputFile, scan_inputs
from bgmatch_dask.warps.profile import load_profile
from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract

INNER, BORDER = 200, 20


def measure(visits: int, side: int, workers: int = 2) -> dict[str, Any]:
    """Plan and carry out ``visits * side²`` units of nothing, and return the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warp, header_seconds = template(folder)
        inputs = files(warp, visits, side)
        start = time.perf_counter()
        plan = plan_of(folder, inputs)
        planning = time.perf_counter() - start
        with connect(ClusterConfig(workers=workers)) as client:
            return {
                "planning seconds": round(planning, 3),
                "header milliseconds per file": round(1e3 * header_seconds, 3),
                **carry_out(plan, client),
            }


def carry_out(plan: TractPlan, client: Any) -> dict[str, Any]:  # noqa: ANN401
    """Carry out the units of a plan as no-ops and return the figures."""
    engine = _CountingEngine(client)
    with BoardFeed(plan, client) as feed:
        meter = _Meter(len(plan.ingest))
        run = RunContext(plan, Ledger(plan.location, "main"), engine, (feed, meter))
        start = time.perf_counter()
        with run.told():
            receipts = run.run_units("ingest", nothing, plan.ingest)
        seconds = time.perf_counter() - start
    held: Any = client.run_on_scheduler(_tasks_held)
    return {
        "units": len(receipts),
        "milliseconds per unit": round(1e3 * seconds / len(receipts), 3),
        "most tasks in flight": engine.most,
        "tasks on the scheduler after it": held,
        "driver memory by quarter [MB]": [round(m / 1e6, 1) for m in meter.memory],
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
    """Notes the memory of this process each time another quarter of the units is done."""

    def __init__(self, units: int) -> None:
        self._units, self._done = units, 0
        self._process = psutil.Process(os.getpid())
        self.memory = [self._process.memory_info().rss]

    def __call__(self, event: Event) -> None:
        if not isinstance(event, UnitDone):
            return
        self._done += 1
        if self._done * 4 // self._units > (self._done - 1) * 4 // self._units:
            self.memory.append(self._process.memory_info().rss)


def _tasks_held(dask_scheduler: Any = None) -> int:  # noqa: ANN401
    return len(dask_scheduler.tasks)


def template(folder: Path) -> tuple[InputFile, float]:
    """Return the description of a real warp, and how long reading a header takes [s]."""
    simulate_tract(
        folder, SimulationConfig(visits=2, patches=(2, 2), patch_size=INNER, border=BORDER)
    )
    profile = load_profile("lsst")
    scan_inputs([str(folder / "warps")], profile, max_pixels=10**8)
    start = time.perf_counter()
    found = scan_inputs([str(folder / "warps")], profile, max_pixels=10**8)
    seconds = time.perf_counter() - start
    return found.files[0], seconds / len(found.files)


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
