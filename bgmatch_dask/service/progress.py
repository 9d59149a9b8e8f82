"""Progress for people: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bgmatch_dask.pipeline.events import Event, Note, StageEnded, StageStarted, UnitDone

__all__ = ("LineProgress", "RichProgress", "progress_listener")


class RichProgress:
    """One bar per stage with done/total and the time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._rejected = 0

    def __enter__(self) -> Self:
        """Show the bars."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case StageStarted(stage, total, done):
                note = f"{done} done before" if done else ""
                self._tasks[stage] = self._progress.add_task(
                    stage, total=total, completed=done, note=note
                )
            case UnitDone(stage, _, _, rejected):
                self._rejected += len(rejected)
                note = f"[yellow]{self._rejected} rejected" if self._rejected else ""
                self._progress.update(self._tasks[stage], advance=1, note=note)
            case StageEnded(stage, _):
                task = self._progress.tasks[self._tasks[stage]]
                self._progress.update(task.id, completed=task.total)
            case Note(text):
                self._progress.console.print(text, highlight=False, markup=False)


class LineProgress:
    """A line at the start and end of a stage and every few seconds in between.

    Parameters
    ----------
    every
        Seconds between two lines.
    write
        Takes one line; default: standard error.
    """

    def __init__(self, *, every: float = 10.0, write: Callable[[str], None] | None = None) -> None:
        self.every = every
        self._write = write or _to_standard_error
        self._total = 0
        self._done = 0
        self._fresh = 0
        self._start = 0.0
        self._last = 0.0

    def __enter__(self) -> Self:
        """Nothing to set up."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to tear down."""

    def __call__(self, event: Event) -> None:
        """Print an event to standard error when it is time."""
        match event:
            case StageStarted(stage, total, done):
                self._total, self._done, self._fresh = total, done, 0
                self._start = self._last = time.monotonic()
                before = f", {done} done before" if done else ""
                self._line(f"{stage}: {total} unit(s){before}")
            case UnitDone(stage, _, _, rejected):
                self._done += 1
                self._fresh += 1
                for item in rejected:
                    self._line(f"{stage}: rejected [{item.code}] {item.source}: {item.detail}")
                self._tick(stage)
            case StageEnded(stage, seconds):
                self._line(f"{stage}: done in {seconds:.1f} s")
            case Note(text):
                self._line(text)

    def _tick(self, stage: str) -> None:
        now = time.monotonic()
        if now - self._last < self.every:
            return
        self._last = now
        left = (now - self._start) / self._fresh * (self._total - self._done)
        self._line(f"{stage}: {self._done}/{self._total}, about {left:.0f} s left")

    def _line(self, text: str) -> None:
        self._write(text)


def _to_standard_error(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def progress_listener() -> RichProgress | LineProgress:
    """Return the listener that suits standard error."""
    console = Console(stderr=True)
    return RichProgress(console) if console.is_terminal else LineProgress()
