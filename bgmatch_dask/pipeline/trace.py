"""What a worker tells about the units that it works on: who, how many bytes, how much memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import psutil
from distributed import get_worker

from bgmatch_dask.pipeline.events import TOPIC, UnitStarted, to_message
from bgmatch_dask.store import Receipt
from bgmatch_dask.store.traffic import take_traffic

__all__ = ("Traced", "peak_memory")

Task = TypeVar("Task")


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
        worker = self._begin(task.unit)
        take_traffic()
        receipt = self.function(task)
        return replace(receipt, worker=worker, n_bytes=take_traffic(), peak_bytes=peak_memory())

    def _begin(self, unit: str) -> str:
        """Tell the cluster that the unit is in work; return the name of the worker."""
        try:
            worker = get_worker()
        except ValueError:
            return ""
        name = str(worker.name)
        limit = int(getattr(worker.memory_manager, "memory_limit", 0) or 0)
        started = UnitStarted(self.stage, unit, name, limit)
        events = [{"at": time.time(), **to_message(started)}]
        worker.log_event(TOPIC, {"board": self.board, "from": "worker", "events": events})
        return name


def peak_memory() -> int:
    """Return the largest resident memory that this process has had [bytes]."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
