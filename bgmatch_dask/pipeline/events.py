"""What a run tells its listeners. The engine itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bgmatch_dask.errors import Rejected

__all__ = ("Event", "Listener", "Note", "StageEnded", "StageStarted", "UnitDone")


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


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A stage is finished."""

    stage: str
    """Name of the stage."""
    seconds: float
    """Wall time of the stage."""


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence for people."""

    text: str
    """The sentence."""


Event = StageStarted | UnitDone | StageEnded | Note
Listener = Callable[[Event], None]
