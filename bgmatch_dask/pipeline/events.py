"""What a run tells its listeners. The engine itself prints nothing."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from bgmatch_dask.errors import Rejected

__all__ = (
    "TOPIC",
    "Event",
    "Listener",
    "Note",
    "Outcome",
    "Picture",
    "RunEnded",
    "RunStarted",
    "StageEnded",
    "StageStarted",
    "UnitDone",
    "UnitStarted",
    "UnitsKept",
    "from_message",
    "to_message",
)

TOPIC = "bgmatch"
"""Topic of Dask's event log under which events travel."""

Outcome = Literal["finished", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins: everything that is known of its size."""

    run: str
    """Name of the run."""
    store: str
    """URL of the store."""
    tract: str
    """Label of the tract."""
    band: str
    """Name of the band; may be empty."""
    unit: str
    """Unit of the images."""
    visits: tuple[str, ...]
    """Labels in the order of the visit axis."""
    nx: int
    """Patches along x."""
    ny: int
    """Patches along y."""
    planned: str
    """One character per (visit, patch), visit by visit: ``1`` where there is a warp to ingest."""
    rejected: tuple[Rejected, ...] = ()
    """Inputs that their headers already rule out."""


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins."""

    stage: str
    """Name of the stage."""
    total: int
    """Units of the stage, those that are already done included."""
    done: int
    """Units that an earlier run has done."""


@dataclass(frozen=True, slots=True)
class UnitsKept:
    """What an earlier run has done of a stage and still holds; follows `StageStarted`."""

    stage: str
    """Name of the stage."""
    units: tuple[str, ...]
    """Keys of the units."""
    empty: tuple[str, ...] = ()
    """Those among them that gave no usable pixel."""
    rejected: tuple[Rejected, ...] = ()
    """Inputs that these units left out."""


@dataclass(frozen=True, slots=True)
class UnitStarted:
    """A worker takes up a unit."""

    stage: str
    """Name of the stage."""
    unit: str
    """Key of the unit."""
    worker: str = ""
    """Name of the worker."""
    memory_limit: int = 0
    """Memory that the worker may use [bytes]; 0 when it has no limit."""


@dataclass(frozen=True, slots=True)
class UnitDone:
    """One unit is finished and its data are stored."""

    stage: str
    """Name of the stage."""
    unit: str
    """Key of the unit."""
    seconds: float
    """Wall time of the unit on its worker."""
    rejected: tuple[Rejected, ...]
    """Inputs that the unit left out."""
    worker: str = ""
    """Name of the worker; empty where the unit ran in this process."""
    n_bytes: int = 0
    """Bytes of input files read, and of arrays read from and written to the store."""
    peak_bytes: int = 0
    """Largest resident memory of the worker's process so far [bytes]."""
    usable: bool = True
    """Whether the unit gave a pixel that can be used."""


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A stage is finished."""

    stage: str
    """Name of the stage."""
    seconds: float
    """Wall time of the stage."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A small picture of what there is so far; a later one of the same name replaces it."""

    name: str
    """Identifier inside the run: letters, digits and dashes."""
    kind: Literal["offset", "before", "after"]
    """Offset map of a visit, or the mosaic of the tract before or after matching."""
    label: str
    """The visit, or what people should know about the picture."""
    png: bytes
    """The image."""


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence for people."""

    text: str
    """The sentence."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over."""

    outcome: Outcome
    """How it ended."""
    text: str = ""
    """One sentence for people: what happened and what to do."""


Event = (
    RunStarted
    | StageStarted
    | UnitsKept
    | UnitStarted
    | UnitDone
    | StageEnded
    | Picture
    | Note
    | RunEnded
)
Listener = Callable[[Event], None]

_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        RunStarted,
        StageStarted,
        UnitsKept,
        UnitStarted,
        UnitDone,
        StageEnded,
        Picture,
        Note,
        RunEnded,
    )
}


def to_message(event: Event) -> dict[str, Any]:
    """Return an event as JSON types, with the name of its type; bytes become base64."""
    data = asdict(event)
    if isinstance(event, Picture):
        data["png"] = base64.b64encode(event.png).decode("ascii")
    return {"event": type(event).__name__, **data}


def from_message(message: Mapping[str, Any]) -> Event | None:
    """Return the event that `to_message` made; None for a kind of another version.

    Raises
    ------
    TypeError, ValueError
        When the message is not one of ours.
    """
    kind = _KINDS.get(str(message.get("event")))
    if kind is None:
        return None
    known = {f.name for f in fields(kind)}
    data = {name: value for name, value in message.items() if name in known}
    if "rejected" in data:
        data["rejected"] = tuple(Rejected(**item) for item in data["rejected"])
    for name in ("visits", "units", "empty"):
        if name in data:
            data[name] = tuple(data[name])
    if kind is Picture:
        data["png"] = base64.b64decode(data["png"])
    return kind(**data)
