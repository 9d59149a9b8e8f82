"""Jobs as lines of text, and as bars on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bgmatch_dask.service.board.links import page_of
from bgmatch_dask.service.jobs.status import JobStatus, RunStatus

__all__ = ("Screen", "job_lines", "status_lines")


def job_lines(jobs: Sequence[JobStatus]) -> Iterator[str]:
    """Yield a table of jobs."""
    if not jobs:
        yield "no jobs"
        return
    yield f"{'job':<21} {'state':<12} {'submitted (UTC)':<17} {'runs':>4}  what"
    for job in jobs:
        submitted = time.strftime("%Y-%m-%d %H:%M", time.gmtime(job.record.created))
        yield (
            f"{job.record.id:<21} {job.state:<12} {submitted:<17} {len(job.runs):>4}  "
            + (job.text or _where_it_is(job))
        )


def status_lines(job: JobStatus) -> Iterator[str]:
    """Yield all that people want to know of one job."""
    beats = [run.beat for run in job.runs if run.beat is not None]
    last = max(beats, key=lambda beat: beat.time, default=None)
    yield f"job        {job.record.id}: {job.state}"
    if job.text:
        yield f"           {job.text}"
    if last is not None:
        owner = last.owner
        who = f"process {owner.get('pid')} on {owner.get('host')}"
        yield f"driver     {who}, attempt {last.attempt}"
        if last.dashboard and not job.over:
            yield f"dashboard  {last.dashboard}"
            yield f"board      {page_of(last.dashboard)}"
    for run in job.runs:
        yield f"run        {run.place.run} of {run.place.store}: {run.state}"
        if run.text and len(job.runs) > 1:
            yield f"           {run.text}"
        for stage in _stages(run):
            yield f"  {stage['name']:<11} {stage['done']}/{stage['total']}{_left(stage)}"
        yield from _rejected(run.board or {})


class Screen:
    """The progress of a job on a terminal, or as lines where there is none."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._before: list[str] = []

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last picture as it is."""
        self._live.stop()

    def show(self, job: JobStatus) -> None:
        """Draw a job; without a terminal print the lines that have changed."""
        if self._console.is_terminal:
            self._live.update(_picture(job), refresh=True)
            return
        lines = list(status_lines(job))
        for line in lines:
            if line not in self._before:
                self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._before = lines


def _picture(job: JobStatus) -> Group:
    parts: list[Any] = [Text(f"{job.record.id}  {job.state}  {job.text}")]
    for run in job.runs:
        table = Table.grid(padding=(0, 1))
        for stage in _stages(run):
            table.add_row(
                Text(f"  {stage['name']:<11}"),
                ProgressBar(total=max(stage["total"], 1), completed=stage["done"], width=32),
                Text(f"{stage['done']}/{stage['total']}{_left(stage)}"),
            )
        parts += [Text(f"{run.place.run}  {run.state}  {run.place.store}"), table]
        parts += [Text(line) for line in _rejected(run.board or {})]
    return Group(*parts)


def _stages(run: RunStatus) -> Sequence[Mapping[str, Any]]:
    stages: Sequence[Mapping[str, Any]] = (run.board or {}).get("stages", ())
    return stages


def _left(stage: Mapping[str, Any]) -> str:
    left = stage.get("seconds_left")
    if stage.get("ended") is not None:
        return f", done in {stage.get('seconds', 0.0):.1f} s"
    return "" if left is None else f", about {left:.0f} s left"


def _rejected(board: Mapping[str, Any]) -> Iterator[str]:
    number = board.get("n_rejected", 0)
    if not number:
        return
    yield f"  rejected    {number} input(s)"
    for item in board["rejected"][:10]:
        yield f"    [{item['code']}] {item['source']}: {item['detail']}"
    if number > 10:
        yield "    … all of them are in the report and in --json"


def _where_it_is(job: JobStatus) -> str:
    for run in job.runs:
        for stage in reversed(_stages(run)):
            return f"{run.place.run}: {stage['name']} {stage['done']}/{stage['total']}"
    return ""
