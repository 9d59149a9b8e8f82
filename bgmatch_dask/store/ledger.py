"""Receipts: what each unit of work did. They, not the arrays, say what is done.

Receipts of one stage lie in JSON-lines segments, each written in one step by the driver after the
units' data are in place: ``runs/<run>/receipts/<stage>/<n>.jsonl``, and for ingest, whose pixels
all runs share, ``receipts/ingest/<n>.jsonl``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bgmatch_dask.errors import Rejected, StoreError
from bgmatch_dask.store.location import Location

__all__ = ("Ledger", "Receipt")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one unit of work did, small enough to travel through the scheduler."""

    stage: str
    """Name of the stage."""
    unit: str
    """Key of the unit inside the stage."""
    digest: str
    """Digest of everything that the result depends on: inputs, configuration, code."""
    seconds: float = 0.0
    """Wall time of the unit."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Numbers for the report and for later stages (JSON types only)."""
    rejected: tuple[Rejected, ...] = ()
    """Inputs that were left out."""
    worker: str = ""
    """Name of the worker; empty where the unit ran in the driver's process."""
    n_bytes: int = 0
    """Bytes of input files read, and of arrays read from and written to the store."""
    peak_bytes: int = 0
    """Largest resident memory of the process so far [bytes]."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Receipt:
        """Return the receipt that `to_json` wrote."""
        rejected = tuple(Rejected(**item) for item in data["rejected"])
        return cls(**{**data, "rejected": rejected})


class Ledger:
    """The receipts of one run.

    Parameters
    ----------
    location
        Place of the store.
    run
        Name of the run.
    """

    def __init__(self, location: Location, run: str) -> None:
        self.location = location
        self.run = run

    def prefix(self, stage: str) -> str:
        """Return where the segments of a stage lie."""
        if stage == "ingest":
            return "receipts/ingest"
        return f"runs/{self.run}/receipts/{stage}"

    def read(self, stage: str) -> dict[str, Receipt]:
        """Return the newest receipt of every unit of a stage.

        Raises
        ------
        StoreError
            ``receipts-corrupt`` when a segment is not what was written.
        """
        receipts: dict[str, Receipt] = {}
        for name in self.location.list(self.prefix(stage)):
            try:
                lines = [json.loads(line) for line in self.location.read_bytes(name).splitlines()]
                receipts |= {line["unit"]: Receipt.from_json(line) for line in lines}
            except (ValueError, TypeError, KeyError) as error:
                raise StoreError(
                    "receipts-corrupt",
                    f"{name} cannot be read: {error}",
                    where=self.location.url,
                    fix="Delete this file and run again; what it spoke of is done once more.",
                ) from error
        return receipts

    def append(self, stage: str, receipts: Iterable[Receipt]) -> None:
        """Add one segment with these receipts; the data they speak of must be written."""
        lines = [json.dumps(r.to_json(), sort_keys=True) for r in receipts]
        if not lines:
            return
        names = list(self.location.list(self.prefix(stage)))
        number = 1 + max((int(n.rsplit("/", 1)[1].split(".")[0]) for n in names), default=0)
        self.location.write_bytes(
            f"{self.prefix(stage)}/{number:08d}.jsonl", ("\n".join(lines) + "\n").encode()
        )

    def clear(self, stage: str) -> None:
        """Forget the receipts of a stage."""
        for name in list(self.location.list(self.prefix(stage))):
            self.location.delete(name)
