"""What one unit of work did, and what its result depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from bgmatch_dask.errors import Rejected
from bgmatch_dask.store.traffic import Written, checksum

__all__ = ("Basis", "Receipt", "digest_of")


def digest_of(value: Any) -> str:  # noqa: ANN401
    """Return a short digest of JSON types (16 hex digits); the order of keys does not matter."""
    return checksum(json.dumps(value, sort_keys=True, default=str).encode())[:16]


@dataclass(frozen=True, slots=True)
class Basis:
    """Everything that a result depends on, in parts, so that a change can be named."""

    inputs: str = ""
    """Digest of the input files: names, sizes, times of change."""
    settings: str = ""
    """Digest of the configuration fields that the unit depends on."""
    code: str = ""
    """Version of the program."""
    upstream: str = ""
    """Digest of the stored objects that the unit reads."""

    def __str__(self) -> str:
        """Return the four parts as one word."""
        return f"{self.inputs}/{self.settings}/{self.code}/{self.upstream}"

    @classmethod
    def parse(cls, text: str) -> Basis:
        """Undo `__str__`; text of another form is a basis of which nothing is known."""
        parts = text.split("/")
        return cls(*parts) if len(parts) == len(fields(cls)) else cls()

    def changed(self, other: Basis) -> tuple[str, ...]:
        """Return the names of the parts that differ."""
        names = [item.name for item in fields(self)]
        return tuple(n for n in names if getattr(self, n) != getattr(other, n))


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one unit of work did, small enough to travel through the scheduler."""

    stage: str
    """Name of the stage."""
    unit: str
    """Key of the unit inside the stage."""
    digest: str
    """The `Basis` of the result as text."""
    seconds: float = 0.0
    """Wall time of the unit."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Numbers for the report and for later stages (JSON types only)."""
    rejected: tuple[Rejected, ...] = ()
    """Inputs that were left out."""
    inputs: tuple[Written, ...] = ()
    """Input files as they were read, with the checksum of their contents."""
    written: tuple[Written, ...] = ()
    """Objects that the unit wrote."""
    attempt: int = 1
    """How often the unit was tried, this time included."""
    started: float = 0.0
    """When the last try began [s since 1970]."""
    peak_bytes: int = 0
    """Largest memory of the process during the unit, or so far where only that is known [bytes]."""
    worker: str = ""
    """Name of the worker; empty where the unit ran in the driver's process."""
    n_bytes: int = 0
    """Bytes of input files read, and of arrays read from and written to the store."""

    @property
    def content(self) -> str:
        """Digest of what the unit left in the store; empty when it left nothing."""
        return digest_of([item.row for item in self.written]) if self.written else ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON types."""
        return {
            **{item.name: getattr(self, item.name) for item in fields(self)},
            "figures": dict(self.figures),
            "rejected": [asdict(item) for item in self.rejected],
            "inputs": [item.row for item in self.inputs],
            "written": [item.row for item in self.written],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Receipt:
        """Return the receipt that `to_json` wrote."""
        return cls(
            **{
                **data,
                "rejected": tuple(Rejected(**item) for item in data["rejected"]),
                "inputs": _objects(data["inputs"]),
                "written": _objects(data["written"]),
            }
        )


def _objects(rows: Sequence[Sequence[Any]]) -> tuple[Written, ...]:
    return tuple(Written(*row) for row in rows)
