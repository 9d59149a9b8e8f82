"""The board of a run that nobody watched, from what its store holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bgmatch_dask.errors import Rejected, StoreError
from bgmatch_dask.pipeline.events import (
    Event,
    RunEnded,
    RunStarted,
    StageEnded,
    StageStarted,
    UnitsKept,
)
from bgmatch_dask.service.board.reducer import apply_event, open_board
from bgmatch_dask.service.board.state import Board
from bgmatch_dask.store import Ledger, Location
from bgmatch_dask.store.versions import newest_version

__all__ = ("replay_board",)

_STAGES = ("ingest", "reference", "difference", "built", "solve", "per_warp", "match", "coadd")


def replay_board(location: Location, run: str) -> Board | None:
    """Return the board that the plan, the receipts and the summary of a run amount to.

    Parameters
    ----------
    location, run
        The store and the run in it.

    Returns
    -------
    Board or None
        None when the store knows nothing of the run. Times, workers and bytes are those of the
        summary, where there is one; a run without a summary is shown as interrupted.
    """
    try:
        plan = location.read_json(f"runs/{run}/plan.json")
    except StoreError:
        return None
    board = open_board(f"{plan['tract']}-{run}")
    for event in _events(location, run, plan):
        board = apply_event(board, event, 0.0)
    return board


def _events(location: Location, run: str, plan: dict[str, Any]) -> Iterator[Event]:
    version = newest_version(location, run)
    ledger = Ledger(location, version)
    receipts = {stage: ledger.read(stage) for stage in _STAGES}
    summary = _summary(location, version)
    patches = plan["patches"]["nx"] * plan["patches"]["ny"]
    planned = "".join(
        "1" if f"{visit}/{patch}" in receipts["ingest"] else "0"
        for visit in plan["visits"]
        for patch in range(patches)
    )
    yield RunStarted(
        run=run,
        store=location.url,
        tract=plan["tract"],
        band=plan["band"],
        unit=plan["unit"],
        visits=tuple(plan["visits"]),
        nx=plan["patches"]["nx"],
        ny=plan["patches"]["ny"],
        planned=planned,
        rejected=tuple(Rejected(**item) for item in plan["rejected"]),
    )
    timings = summary.get("timings", {})
    for stage in _STAGES:
        done = receipts[stage]
        if not done and stage not in timings:
            continue
        total = max(len(done), 1)
        yield StageStarted(stage, total, len(done))
        yield UnitsKept(
            stage,
            tuple(done),
            tuple(unit for unit, r in done.items() if not r.figures.get("n_valid", 1)),
            tuple(dict.fromkeys(item for r in done.values() for item in r.rejected)),
        )
        if stage in timings:
            yield StageEnded(stage, float(timings[stage] or 0.0))
    if summary:
        yield RunEnded("finished")
    else:
        yield RunEnded("interrupted", "The run has not finished: run it again to go on.")


def _summary(location: Location, version: str) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = location.read_json(f"runs/{version}/summary.json")
    except StoreError:
        return {}
    return summary
