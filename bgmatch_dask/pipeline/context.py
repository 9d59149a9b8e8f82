"""What every stage needs at hand, and the loop that all stages of units share."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from bgmatch_dask.errors import BgmatchError
from bgmatch_dask.pipeline.engine import Engine
from bgmatch_dask.pipeline.events import (
    Event,
    Listener,
    Outcome,
    RunEnded,
    RunStarted,
    StageEnded,
    StageStarted,
    UnitDone,
    UnitsKept,
)
from bgmatch_dask.pipeline.plan import TractPlan, refuse_bad_input
from bgmatch_dask.pipeline.trace import Traced
from bgmatch_dask.store import Ledger, Receipt, TractStore, open_store

__all__ = ("RunContext", "board_key", "run_started")

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
    def told(self) -> Iterator[None]:
        """Tell the listeners of the start and the end of the run, however it ends."""
        self.emit(run_started(self.plan))
        try:
            yield
        except BgmatchError as error:
            self.emit(RunEnded("failed", str(error)))
            raise
        except BaseException as error:
            # Ctrl-C and signals: what is done is written down, and a resume goes on from there.
            outcome: Outcome = "failed" if isinstance(error, Exception) else "interrupted"
            self.emit(RunEnded(outcome, f"{type(error).__name__}: {error}".rstrip(": ")))
            raise
        self.emit(RunEnded("finished"))

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
        traced = Traced(function, name, board_key(self.plan))
        with self.stage(name, len(tasks), len(receipts)):
            if receipts:
                self.emit(_kept(name, receipts))
            for receipt in self._recorded(name, self.engine.map(traced, missing, name)):
                receipts[receipt.unit] = receipt
                refuse_bad_input(self.plan.config, receipt.rejected)
                self.emit(_unit_done(name, receipt))
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


def board_key(plan: TractPlan) -> str:
    """Return the key under which a run is watched: its name, tract and place, short and safe."""
    place = hashlib.blake2b(plan.location.url.encode(), digest_size=4).hexdigest()
    return f"{plan.spec.geometry.tract}-{plan.config.run}-{place}"


def run_started(plan: TractPlan) -> RunStarted:
    """Return the event that tells what a run is made of."""
    geometry = plan.spec.geometry
    patches = geometry.patches.n_patches
    rows = {visit: bytearray(b"0" * patches) for visit in plan.spec.visits}
    for task in plan.ingest:
        rows[task.visit][task.patch] = ord("1")
    return RunStarted(
        run=plan.config.run,
        store=plan.location.url,
        tract=geometry.tract,
        band=geometry.band,
        unit=plan.spec.unit,
        visits=tuple(plan.spec.visits),
        nx=geometry.patches.nx,
        ny=geometry.patches.ny,
        planned="".join(row.decode() for row in rows.values()),
        rejected=plan.rejected,
    )


def _kept(stage: str, receipts: Mapping[str, Receipt]) -> UnitsKept:
    rejected = [item for receipt in receipts.values() for item in receipt.rejected]
    return UnitsKept(
        stage,
        tuple(receipts),
        tuple(unit for unit, receipt in receipts.items() if not _usable(receipt)),
        tuple(dict.fromkeys(rejected)),
    )


def _unit_done(stage: str, receipt: Receipt) -> UnitDone:
    return UnitDone(
        stage,
        receipt.unit,
        receipt.seconds,
        receipt.rejected,
        worker=receipt.worker,
        n_bytes=receipt.n_bytes,
        peak_bytes=receipt.peak_bytes,
        usable=_usable(receipt),
    )


def _usable(receipt: Receipt) -> bool:
    return bool(receipt.figures.get("n_valid", 1))
