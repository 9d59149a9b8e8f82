"""The state of a run as people see it. Everything here is frozen and small."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from bgmatch_dask.errors import Rejected

__all__ = (
    "Board",
    "Cell",
    "PictureRef",
    "Stage",
    "WorkerState",
    "Working",
)

Outcome = Literal["waiting", "running", "finished", "failed", "interrupted"]


class Cell(StrEnum):
    """What became of one (visit, patch); one character, so that a large tract stays light."""

    NONE = "."
    """There is no warp."""
    WAITING = "w"
    """The warp is not yet in the store."""
    INGESTED = "i"
    """Pixels and superpixel sums are in the store."""
    DIFFERENCED = "d"
    """The differences to the hub visits are measured."""
    MATCHED = "m"
    """The offset is known."""
    COADDED = "c"
    """The warp is in the coadd of its patch."""
    EMPTY = "e"
    """The warp has no usable pixel."""
    REJECTED = "r"
    """The warp could not be read; the reason is among the rejected inputs."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the run."""

    name: str
    """Name of the stage."""
    total: int
    """Units of the stage."""
    done: int
    """Units done, those of earlier runs included."""
    kept: int
    """Units that an earlier run had done."""
    started: float
    """When it began [s since 1970]."""
    ended: float | None = None
    """When it ended [s since 1970]; None while it runs."""
    seconds: float = 0.0
    """Wall time of the ended stage."""
    unit_seconds: float = 0.0
    """Sum of the wall times of its units."""
    n_bytes: int = 0
    """Bytes that its units moved."""
    rejected: int = 0
    """Inputs that its units left out."""

    def seconds_left(self, at: float) -> float | None:
        """Return the time left at the mean pace so far [s]; None while no unit is done."""
        if self.ended is not None or self.done >= self.total:
            return 0.0
        fresh = self.done - self.kept
        if fresh <= 0:
            return None
        return max(at - self.started, 0.0) / fresh * (self.total - self.done)


@dataclass(frozen=True, slots=True)
class Working:
    """A unit that a worker has taken up."""

    stage: str
    """Name of the stage."""
    unit: str
    """Key of the unit: ``visit/patch`` or ``patch``."""
    worker: str
    """Name of the worker."""
    since: float
    """When [s since 1970]."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What one worker has done for this run."""

    name: str
    """Its name in the cluster."""
    units: int = 0
    """Units done."""
    unit_seconds: float = 0.0
    """Sum of their wall times."""
    peak_bytes: int = 0
    """Largest resident memory of its process so far."""
    memory_limit: int = 0
    """Memory that it may use [bytes]; 0 when unknown or without limit."""
    seen: float = 0.0
    """When it was last heard of [s since 1970]."""


@dataclass(frozen=True, slots=True)
class PictureRef:
    """A picture that exists; its bytes are kept beside the board."""

    name: str
    """Identifier inside the run."""
    kind: str
    """``offset``, ``before`` or ``after``."""
    label: str
    """The visit, or what people should know."""
    version: str
    """Changes with the bytes."""


@dataclass(frozen=True, slots=True)
class Board:
    """Everything that is shown of a run."""

    key: str
    """Key of the run among those that a scheduler watches."""
    run: str = ""
    """Name of the run."""
    store: str = ""
    """URL of the store."""
    tract: str = ""
    """Label of the tract."""
    band: str = ""
    """Name of the band."""
    unit: str = ""
    """Unit of the images."""
    outcome: Outcome = "waiting"
    """Whether it waits, runs, or how it ended."""
    text: str = ""
    """The sentence that came with the end."""
    started: float = 0.0
    """When the run began [s since 1970]; 0 before."""
    updated: float = 0.0
    """When the newest event happened [s since 1970]."""
    version: int = 0
    """Number of events so far."""
    visits: tuple[str, ...] = ()
    """Labels in the order of the visit axis."""
    nx: int = 0
    """Patches along x."""
    ny: int = 0
    """Patches along y."""
    cells: str = ""
    """One `Cell` per (visit, patch), visit by visit."""
    stages: tuple[Stage, ...] = ()
    """Stages in the order in which they began."""
    working: tuple[Working, ...] = ()
    """Units in work."""
    workers: tuple[WorkerState, ...] = ()
    """Workers that have done something, by name."""
    rejected: tuple[Rejected, ...] = ()
    """Inputs left out, the first `MOST_REJECTED` of them."""
    n_rejected: int = 0
    """Number of inputs left out."""
    pictures: tuple[PictureRef, ...] = ()
    """Pictures so far."""
    notes: tuple[str, ...] = ()
    """The last sentences for people."""

    @property
    def n_patches(self) -> int:
        """Number of patches."""
        return self.nx * self.ny

    @property
    def over(self) -> bool:
        """Whether the run has ended, in whatever way."""
        return self.outcome not in {"waiting", "running"}

    def row(self, visit: int) -> str:
        """Return the cells of a visit, one character per patch."""
        return self.cells[visit * self.n_patches : (visit + 1) * self.n_patches]

    def count(self, cell: Cell) -> int:
        """Return the number of (visit, patch) in a state."""
        return self.cells.count(cell.value)
