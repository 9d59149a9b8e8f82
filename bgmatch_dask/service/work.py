"""The whole work on one tract: plan, run, report. Shared by ``run`` and by the drivers of jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client

from bgmatch_dask.pipeline.engine import DaskEngine, asking
from bgmatch_dask.pipeline.events import Listener, Note
from bgmatch_dask.pipeline.plan import TractPlan
from bgmatch_dask.pipeline.run import Until, run_tract
from bgmatch_dask.report.html import write_report
from bgmatch_dask.service.board.feed import BoardFeed
from bgmatch_dask.service.board.plugin import board_link

__all__ = ("carry_out",)


def carry_out(
    plan: TractPlan,
    client: Client,
    listeners: Sequence[Listener],
    until: Until = "coadd",
    while_waiting: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Carry out a plan on a cluster, write its report if it is finished, and return its summary.

    Beside the listeners, the board in the store and on the scheduler's page is kept up to date.
    What is called while no unit ends may raise, to stop the run.

    Raises
    ------
    BgmatchError
        When the job cannot be finished.
    """
    with BoardFeed(plan, client) as feed:
        with asking(client, "the start"):
            link = board_link(client, feed.key)
        everyone: tuple[Listener, ...] = (*listeners, feed)
        for tell in everyone:
            tell(Note(f"{len(plan.spec.visits)} visits, {len(plan.ingest)} units"))
            tell(Note(f"board: {link}"))
        threads = plan.config.cluster.max_workers or 0
        engine = DaskEngine(client, threads=threads, while_waiting=while_waiting)
        summary = run_tract(plan, engine, everyone, until=until)
        if until == "coadd":
            summary["report"] = write_report(plan.location, plan.config.run, engine)
    return summary
