"""What every stage needs at hand, and the loop that all stages of units share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from bgmatch_dask.pipeline.engine import Engine
from bgmatch_dask.pipeline.events import Event, Listener, StageEnded, StageStarted, UnitDone
from bgmatch_dask.pipeline.plan import TractPlan, refuse_bad_input
from bgmatch_dask.store import Ledger, Receipt, TractStore, open_store

__all__ = ("RunContext",)

_SEGMENT_SECONDS = 5.0
"""Receipts are written at least this often, so that little is done again after a crash."""


class Unit(Protocol):
    """What a task of any stage tells about itself."""

    @property
    def unit(self) -> str:
        """Key of the unit inside its stage."""
        ...

    @property
    def digest(self) -> str:
        """Digest of all that the result depends on."""
        ...


Task = TypeVar("Task", bound=Unit)


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run: its plan, its store, its engine and its listeners."""

    plan: TractPlan
    """What is to be done."""
    ledger: Ledger
    """Receipts of the run."""
    engine: Engine
    """Where units are carried out."""
    listeners: tuple[Listener, ...]
    """Who is told."""
    timings: dict[str, float] = field(default_factory=dict)
    """Wall time of each stage so far [s]."""

    @property
    def store(self) -> TractStore:
        """The open store."""
        return open_store(self.plan.location.url)

    def emit(self, event: Event) -> None:
        """Tell all listeners."""
        for listener in self.listeners:
            listener(event)

    @contextmanager
    def stage(self, name: str, total: int = 1, done: int = 0) -> Iterator[None]:
        """Time a stage and tell the listeners of its start and end."""
        start = time.perf_counter()
        self.emit(StageStarted(name, total, done))
        yield
        self.timings[name] = time.perf_counter() - start
        self.emit(StageEnded(name, self.timings[name]))

    def run_units(
        self, name: str, function: Callable[[Task], Receipt], tasks: Sequence[Task]
    ) -> dict[str, Receipt]:
        """Carry out the units of a stage that have no valid receipt yet.

        Parameters
        ----------
        name
            Name of the stage.
        function
            Carries out one task and returns its receipt.
        tasks
            All units of the stage.

        Returns
        -------
        dict
            Receipt of every unit, in the order of ``tasks``.
        """
        known = self.ledger.read(name)
        receipts = {
            task.unit: known[task.unit]
            for task in tasks
            if task.unit in known and known[task.unit].digest == task.digest
        }
        missing = [task for task in tasks if task.unit not in receipts]
        with self.stage(name, len(tasks), len(receipts)):
            for receipt in self._recorded(name, self.engine.map(function, missing, name)):
                receipts[receipt.unit] = receipt
                refuse_bad_input(self.plan.config, receipt.rejected)
                self.emit(UnitDone(name, receipt.unit, receipt.seconds, receipt.rejected))
        return {task.unit: receipts[task.unit] for task in tasks}

    def _recorded(self, name: str, results: Iterator[Receipt]) -> Iterator[Receipt]:
        """Pass receipts on and write them down in segments, also when the run is stopped."""
        pending: list[Receipt] = []
        last = time.perf_counter()
        try:
            for receipt in results:
                pending.append(receipt)
                yield receipt
                if time.perf_counter() - last > _SEGMENT_SECONDS:
                    self.ledger.append(name, pending)
                    pending, last = [], time.perf_counter()
        finally:
            self.ledger.append(name, pending)
