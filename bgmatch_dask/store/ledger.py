"""The ledger: receipts of all units. They, not the arrays, say what is done.

Receipts of one stage lie in segments, each written in one step by the driver after the units'
data are in place: ``runs/<run>/receipts/<stage>/<n>.jsonl``, and for ingest, whose pixels all
runs share, ``receipts/ingest/<n>.jsonl``. A ledger belongs to one version of a run's products
(`bgmatch_dask.store.versions`); what all versions of a run work with has receipts under the name
of the run. The first line of a segment holds the checksum of the others, so that a flipped bit
cannot pass for a number. When a stage has many segments the newest are merged, so that the number
of objects does not grow with the number of units, and no receipt is written over and over again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bgmatch_dask.errors import StoreError
from bgmatch_dask.store.location import Location
from bgmatch_dask.store.receipt import Receipt, digest_of
from bgmatch_dask.store.traffic import checksum

__all__ = ("SHARED_STAGES", "WORKING_STAGES", "Ledger", "ledgers", "run_names")

SHARED_STAGES = ("layout", "ingest")
"""Stages whose objects belong to all runs of a store."""

WORKING_STAGES = ("plan", "visits", "reference", "difference")
"""Stages whose objects belong to all versions of a run."""

_MERGE_ABOVE = 32
"""Segments of one stage that are let be."""
_FEW = 20
"""Segments that are left alone at most when others are merged."""


class Ledger:
    """The receipts of one run.

    Parameters
    ----------
    location
        Place of the store.
    run
        Name of the run, or of a version of it.
    guard
        Called before anything is written; raises when this process may not write any more.
    """

    def __init__(
        self, location: Location, run: str, guard: Callable[[], None] = lambda: None
    ) -> None:
        self.location = location
        self.run = run
        self.guard = guard
        self._receipts: dict[str, dict[str, Receipt]] = {}

    def prefix(self, stage: str) -> str:
        """Return where the segments of a stage lie."""
        if stage in SHARED_STAGES:
            return f"receipts/{stage}"
        owner = self.run.partition("@")[0] if stage in WORKING_STAGES else self.run
        return f"runs/{owner}/receipts/{stage}"

    def stages(self, *, shared: bool = True) -> tuple[str, ...]:
        """Return the stages that have receipts under this name, those of all runs first."""
        own = f"runs/{self.run}/receipts/"
        names = {name.removeprefix(own).split("/")[0] for name in self.location.list(own[:-1])}
        every = [s for s in SHARED_STAGES if shared and any(True for _ in self._segments(s))]
        return (*every, *sorted(names))

    def read(self, stage: str) -> dict[str, Receipt]:
        """Return the newest receipt of every unit of a stage.

        Raises
        ------
        StoreError
            ``receipts-corrupt`` when a segment is not what was written.
        """
        if stage not in self._receipts:
            receipts: dict[str, Receipt] = {}
            for name in self._segments(stage):
                receipts |= {r.unit: r for r in self.read_segment(name)}
            self._receipts[stage] = receipts
        return dict(self._receipts[stage])

    def read_segment(self, name: str) -> tuple[Receipt, ...]:
        """Return the receipts of one segment.

        Raises
        ------
        StoreError
            ``receipts-corrupt`` when it is not what was written.
        """
        try:
            return tuple(
                Receipt.from_json(json.loads(line)) for line in self._body(name).splitlines()
            )
        except (ValueError, TypeError, KeyError) as error:
            raise self._corrupt(name, str(error)) from error

    def _body(self, name: str) -> bytes:
        """Return the lines of a segment, whose checksum holds."""
        head, _, body = self.location.read_bytes(name).partition(b"\n")
        if head != _head(body):
            raise self._corrupt(name, "its checksum fails")
        return body

    def _corrupt(self, name: str, why: str) -> StoreError:
        return StoreError(
            "receipts-corrupt",
            f"{name} cannot be read: {why}",
            where=self.location.url,
            fix="`bgmatch verify --repair STORE` does what it spoke of once more.",
        )

    def read_sound(self, stage: str) -> tuple[dict[str, Receipt], dict[str, StoreError]]:
        """Return the receipts of a stage that can be read, and the errors of other segments."""
        receipts: dict[str, Receipt] = {}
        errors: dict[str, StoreError] = {}
        for name in self._segments(stage):
            try:
                receipts |= {r.unit: r for r in self.read_segment(name)}
            except StoreError as error:
                errors[name] = error
        return receipts, errors

    def discard_damaged(self, stage: str) -> int:
        """Delete the segments of a stage that cannot be read; return how many there were."""
        _, names = self.read_sound(stage)
        for name in names:
            self.location.delete(name)
        self._receipts.pop(stage, None)
        return len(names)

    def append(self, stage: str, receipts: Iterable[Receipt]) -> None:
        """Add one segment with these receipts; the data they speak of must be written."""
        new = list(receipts)
        if not new:
            return
        self.guard()
        known = self.read(stage)
        names = list(self._segments(stage))
        merged = self._to_merge(names) if len(names) >= _MERGE_ABOVE else []
        number = 1 + max(map(_number, names), default=0)
        self._write(stage, number, new, b"".join(self._body(name) for name in merged))
        self._receipts[stage] = known | {receipt.unit: receipt for receipt in new}
        # The merged segment is the newest, so that those in it add nothing, should this end.
        for name in merged:
            self.location.delete(name)

    def _to_merge(self, names: Sequence[str]) -> list[str]:
        """Return the newest segments, up to the oldest one that all newer ones outweigh.

        What is left are segments that are each larger than all that follow: few of them.
        """
        sizes = [self.location.size(name) or 0 for name in names]
        first = next(i for i in range(len(names)) if sizes[i] <= sum(sizes[i + 1 :]) or i >= _FEW)
        return list(names[first:])

    def drop(self, stage: str, units: Collection[str]) -> None:
        """Forget the receipts of some units, so that the next run does these again."""
        kept = {unit: r for unit, r in self.read(stage).items() if unit not in units}
        names = list(self._segments(stage))
        self.guard()
        if kept:
            self._write(stage, 1 + max(map(_number, names), default=0), kept.values())
        # Until the last old segment is gone, a crash can bring a dropped receipt back: its
        # objects are then found missing by the next `verify`.
        for name in names:
            self.location.delete(name)
        self._receipts[stage] = kept

    def clear(self, stage: str) -> None:
        """Forget the receipts of a stage."""
        for name in list(self._segments(stage)):
            self.location.delete(name)
        self._receipts.pop(stage, None)

    def keep_settings(self, settings: Mapping[str, Any]) -> str:
        """Store what a stage depends on, by its digest, to explain later why units are redone."""
        digest = digest_of(settings)
        name = f"receipts/settings/{digest}.json"
        if not self.location.exists(name):
            self.location.write_json(name, {key: settings[key] for key in sorted(settings)})
        return digest

    def settings(self, digest: str) -> dict[str, Any]:
        """Return what `keep_settings` stored; empty when it is lost."""
        try:
            found = self.location.read_json(f"receipts/settings/{digest}.json")
        except (StoreError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _segments(self, stage: str) -> Iterator[str]:
        return self.location.list(self.prefix(stage))

    def _write(
        self, stage: str, number: int, receipts: Iterable[Receipt], before: bytes = b""
    ) -> None:
        lines = [json.dumps(r.to_json(), sort_keys=True) for r in receipts]
        body = before + ("\n".join(lines) + "\n").encode()
        name = f"{self.prefix(stage)}/{number:08d}.jsonl"
        self.location.write_bytes(name, _head(body) + b"\n" + body)


def run_names(location: Location) -> tuple[str, ...]:
    """Return the names of the runs of a store and of their versions."""
    return tuple(sorted({name.split("/")[1] for name in location.list("runs")}))


def ledgers(location: Location) -> tuple[Ledger, ...]:
    """Return the ledgers of all runs of a store; of one without a run, that of ``main``."""
    return tuple(Ledger(location, name) for name in run_names(location) or ("main",))


def _head(body: bytes) -> bytes:
    """Return the first line of a segment: what the others add up to."""
    return json.dumps({"checksum": checksum(body), "receipts": body.count(b"\n")}).encode()


def _number(name: str) -> int:
    stem = name.rsplit("/", 1)[1].split(".", maxsplit=1)[0]
    return int(stem) if stem.isdecimal() else 0
