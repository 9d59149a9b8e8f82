"""What every stage needs at hand, and the loop that all stages of units share."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import zarr

from bgmatch_dask.errors import BgmatchError
from bgmatch_dask.pipeline.attempt import UnitWork, file_checksum
from bgmatch_dask.pipeline.basis import why_again
from bgmatch_dask.pipeline.engine import Engine
from bgmatch_dask.pipeline.events import (
    Event,
    Listener,
    Note,
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
from bgmatch_dask.store import Ledger, Receipt, TractStore, create_tract, open_store
from bgmatch_dask.store.layout import create_group, restore_tract, spec_to_json
from bgmatch_dask.store.receipt import Basis
from bgmatch_dask.store.traffic import recorded

__all__ = ("RunContext", "board_key", "recover_layout", "run_started")


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
    earlier: Ledger | None = None
    """Receipts of the version in force, to tell what changed since."""

    @property
    def version(self) -> str:
        """Name of the version of the products that the run makes; see `store.versions`."""
        return self.ledger.run

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
        # A stage may come several times, once for each iteration.
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start
        self.emit(StageEnded(name, self.timings[name]))

    @contextmanager
    def record(self, stage: str, unit: str = "tract") -> Iterator[dict[str, Any]]:
        """Write a receipt of what the driver itself writes; figures may be put into the dict.

        Where nothing had to be written, the receipt of before holds.
        """
        start, started = time.perf_counter(), time.time()
        figures: dict[str, Any] = {}
        with recorded() as traffic:
            yield figures
        receipt = Receipt(stage, unit, "", time.perf_counter() - start, figures, started=started)
        receipt = replace(receipt, written=traffic.written)
        known = self.ledger.read(stage).get(unit)
        if receipt.written and (
            known is None or (known.written, known.figures) != (receipt.written, figures)
        ):
            self.ledger.append(stage, [receipt])

    def tell_kept(self, name: str) -> None:
        """Tell the listeners of a stage all of whose units are done already."""
        receipts = self.ledger.read(name)
        if receipts:
            with self.stage(name, len(receipts), len(receipts)):
                self.emit(_kept(name, receipts))

    def create_group(self, path: str, fill: Callable[[zarr.Group], object]) -> None:
        """Make a group of products and its arrays, see `bgmatch_dask.store.layout`."""
        with self.record("layout", path):
            create_group(self.plan.location, path, fill)

    def with_store(self, *, rebin: bool) -> RunContext:
        """Make the store, or let the visits of the plan join it, and return the run on it."""
        if not self.plan.location.exists("zarr.json"):
            recover_layout(self.ledger)
        with self.record("layout") as figures:
            spec = create_tract(self.plan.location, self.plan.spec, rebin=rebin)
            figures["spec"] = spec_to_json(spec)
        return replace(self, plan=replace(self.plan, spec=spec))

    def run_units(
        self,
        name: str,
        function: Callable[[Task], Receipt],
        tasks: Sequence[Task],
        settings: Mapping[str, Any] | None = None,
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
        settings
            What the digests of the tasks were made of; kept to tell later what changed.

        Returns
        -------
        dict
            Receipt of every unit, in the order of ``tasks``.
        """
        known = self.ledger.read(name)
        if settings is not None:
            self.ledger.keep_settings(settings)
        receipts = self._still_valid(name, known, tasks)
        missing = [task for task in tasks if task.unit not in receipts]
        before = known or (self.earlier.read(name) if self.earlier else {})
        if before:
            for reason in why_again(self.ledger, before, missing):
                self.emit(Note(f"{name}: {reason}"))
        work = Traced(UnitWork(function), name, board_key(self.plan))
        with self.stage(name, len(tasks), len(receipts)):
            if receipts:
                self.emit(_kept(name, receipts))
            for receipt in self._recorded(name, self.engine.map(work, missing, name)):
                receipts[receipt.unit] = receipt
                refuse_bad_input(self.plan.config, receipt.rejected)
                self.emit(_unit_done(name, receipt))
        return {task.unit: receipts[task.unit] for task in tasks}

    def _still_valid(
        self, name: str, known: Mapping[str, Receipt], tasks: Sequence[Task]
    ) -> dict[str, Receipt]:
        """Return the receipts that hold; a file that was only touched is as good as before."""
        valid: dict[str, Receipt] = {}
        touched: list[Receipt] = []
        for task in tasks:
            receipt = known.get(task.unit)
            if receipt is None:
                continue
            if receipt.digest == task.digest:
                valid[task.unit] = receipt
            elif _only_touched(receipt, task):
                touched.append(replace(receipt, digest=task.digest))
        self.ledger.append(name, touched)
        return valid | {receipt.unit: receipt for receipt in touched}

    def _recorded(self, name: str, results: Iterator[Receipt]) -> Iterator[Receipt]:
        """Pass receipts on and write them down in segments, also when the run is stopped."""
        pending: list[Receipt] = []
        last = time.perf_counter()
        try:
            for receipt in results:
                pending.append(receipt)
                yield receipt
                if time.perf_counter() - last > self.plan.config.store.receipts_every:
                    self.ledger.append(name, pending)
                    pending, last = [], time.perf_counter()
        finally:
            self.ledger.append(name, pending)


def recover_layout(ledger: Ledger) -> None:
    """Write the layout of a store again whose root is gone; without a record of it, begin anew.

    Pixels lie by the place of their visit on the axis: without the order of the axis, nothing
    that the receipts of ingest say can be found.
    """
    made = ledger.read("layout").get("tract")
    if made is not None:
        restore_tract(ledger.location, made.figures["spec"])
    else:
        ledger.clear("ingest")


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


def _only_touched(receipt: Receipt, task: Any) -> bool:  # noqa: ANN401
    """Whether nothing but the times of the input files changed, not their contents."""
    if Basis.parse(receipt.digest).changed(Basis.parse(task.digest)) != ("inputs",):
        return False
    before = {item.name: (item.size, item.checksum) for item in receipt.inputs}
    files = getattr(task, "files", ())
    if not files or before.keys() != {file.path for file in files}:
        return False
    return all(
        before[file.path][0] == file.size and before[file.path][1] == file_checksum(file.path)
        for file in files
    )
