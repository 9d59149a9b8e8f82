"""Writes down, for one run of a job, that its driver lives and how far it has come."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bgmatch_dask.errors import StoreError
from bgmatch_dask.pipeline.events import Event, RunEnded
from bgmatch_dask.service.jobs.files import JobFiles
from bgmatch_dask.service.jobs.record import OVER, Beat, JobRecord, RunPlace, State
from bgmatch_dask.service.progress import LineProgress
from bgmatch_dask.store.owner import identity

__all__ = ("RunReporter", "StopAskedError")

_MOST_LOG = 200_000
"""Characters of the log that are kept."""


class StopAskedError(BaseException):
    """Raised inside a run that someone wants to stop; like Ctrl-C, it is no fault of the run."""


class RunReporter:
    """The listener of one run, and the writer of its job files.

    Events come from the thread of the run; `write` is called by the driver's main thread.

    Parameters
    ----------
    record
        The job.
    place
        The run.
    """

    def __init__(self, record: JobRecord, place: RunPlace) -> None:
        self.record = record
        self.place = place
        self.files = JobFiles(place)
        self._beat = Beat(record.id, record.attempt, "waiting", owner=identity())
        self._guard = threading.Lock()
        self._writing = threading.Lock()
        self._stop = ""
        self._log = self._earlier_log()
        self._logged = len(self._log)
        self._lines = LineProgress(every=30.0, write=self.log)

    @property
    def state(self) -> State:
        """What is said of the run."""
        return self._beat.state

    def __call__(self, event: Event) -> None:
        """Take note of an event.

        Raises
        ------
        StopAskedError
            When the run is to stop.
        """
        self._lines(event)
        if not isinstance(event, RunEnded):
            self.check()

    def check(self) -> None:
        """Stop here when the run is to stop.

        Raises
        ------
        StopAskedError
            Then.
        """
        if self._stop:
            raise StopAskedError(self._stop)

    def log(self, text: str) -> None:
        """Add lines to the log."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        lines = "".join(f"{stamp} {line}\n" for line in text.splitlines())
        with self._guard:
            self._log = (self._log + lines)[-_MOST_LOG:]
            self._logged = -1

    def ask_to_stop(self, why: str) -> None:
        """Stop the run at its next event."""
        self._stop = why

    def say(
        self, state: State, text: str = "", *, scheduler: str = "", dashboard: str = ""
    ) -> None:
        """Change what is said of the run from the next beat on."""
        with self._guard:
            self._beat = replace(
                self._beat,
                state=state,
                text=text,
                scheduler=scheduler or self._beat.scheduler,
                dashboard=dashboard or self._beat.dashboard,
            )
        if text:
            self.log(f"{state}: {text}")

    def write(self) -> None:
        """Write the beat, and the log if there is something new.

        A store that refuses is tried again at the next beat, so that it does not end the run;
        if the run itself cannot write either, that is its own error.
        """
        try:
            self.write_or_raise()
        except StoreError as error:
            with contextlib.suppress(OSError):
                sys.stderr.write(f"{error}\n")

    def write_or_raise(self) -> None:
        """Write the beat, and the log if there is something new.

        Raises
        ------
        StoreError
            When the store refuses.
        """
        with self._writing:
            self._write()

    def _write(self) -> None:
        with self._guard:
            self._beat = replace(self._beat, number=self._beat.number + 1, time=time.time())
            beat, log = self._beat, self._log
            new_log, self._logged = self._logged < 0, len(self._log)
        if new_log:
            self.files.write_log(log)
        # Last, so that whoever reads that a run is over finds its log complete.
        self.files.write_beat(beat)

    def stop_asked(self) -> bool:
        """Whether someone has asked this run to stop, by a file in its store."""
        if self.state in OVER:
            return False
        try:
            return self.files.asked_to_cancel(self.record)
        except StoreError:
            return False

    def to_post(self) -> Mapping[str, Any]:
        """Return what is posted on the scheduler."""
        with self._guard:
            beat, log = self._beat, self._log
        try:
            board = self.files.board()
        except StoreError:
            board = None
        return {"beat": beat.to_json(), "board": board, "log": log[-16_000:]}

    def _earlier_log(self) -> str:
        if self.record.attempt == 1:
            return ""
        try:
            return self.files.log()
        except StoreError:
            return ""
