"""What a worker tells about the units that it works on: who, how many bytes, how much memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import psutil
from distributed import Worker, get_worker

from bgmatch_dask.pipeline.collector import keep_loaded
from bgmatch_dask.pipeline.events import TOPIC, UnitStarted, to_message
from bgmatch_dask.store import Receipt
from bgmatch_dask.store.traffic import take_traffic

__all__ = ("Traced", "peak_memory")

Task = TypeVar("Task")

_NOTICE_SECONDS = 0.2
"""A unit that is over sooner is not shown as in work: its message costs more than it tells."""
_GREETED: set[tuple[str, str, str]] = set()
"""Stages, boards and workers of which this process has told."""


@dataclass(frozen=True, slots=True)
class Traced(Generic[Task]):
    """Carries out a task and adds to its receipt where it ran and what it took."""

    function: Callable[[Task], Receipt]
    """Carries out one task."""
    stage: str
    """Name of the stage."""
    board: str
    """Key of the run under which the worker tells that it has begun."""

    def __call__(self, task: Any) -> Receipt:  # noqa: ANN401
        """Carry out the task, here or on a worker."""
        try:
            worker = get_worker()
        except ValueError:
            worker = None
        notice = None if worker is None else _Notice(worker, self.stage, task.unit, self.board)
        take_traffic()
        try:
            receipt = self.function(task)
        finally:
            if notice is not None:
                notice.over = True
                keep_loaded(self.stage)
        name = "" if worker is None else str(worker.name)
        return replace(receipt, worker=name, n_bytes=take_traffic(), peak_bytes=peak_memory())


class _Notice:
    """Tells the cluster that a unit is in work, unless it is over before people could see it.

    The first unit of a worker in a stage is told at once, so that the worker is known.
    """

    def __init__(self, worker: Worker, stage: str, unit: str, board: str) -> None:
        self.over = False
        self._worker, self._board = worker, board
        limit = int(getattr(worker.memory_manager, "memory_limit", 0) or 0)
        started = UnitStarted(stage, unit, str(worker.name), limit)
        self._event = {"at": time.time(), **to_message(started)}
        known = (stage, board, worker.address)
        if known in _GREETED:
            worker.loop.add_callback(worker.loop.call_later, _NOTICE_SECONDS, self)
        else:
            _GREETED.add(known)
            self()

    def __call__(self) -> None:
        """Tell it."""
        if not self.over:
            message = {"board": self._board, "from": "worker", "events": [self._event]}
            self._worker.log_event(TOPIC, message)


def peak_memory() -> int:
    """Return the largest resident memory that this process has had [bytes]."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
