"""What a part of the benchmark hands back: figures, tables, plots and checks, all plain data."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ("Cell", "Check", "Figure", "PartResult", "Plot", "Table", "spread")

Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, with its spread over the repeats."""

    key: str
    """Name that stays the same from version to version."""
    value: float
    """Median of the repeats."""
    unit: str
    """Unit; ``x`` for a ratio."""
    better: str
    """``lower`` or ``higher``."""
    low: float
    """Smallest of the repeats."""
    high: float
    """Largest of the repeats."""
    repeats: int = 1
    """Number of repeats."""
    relative: bool = False
    """Whether it is a ratio within one run, and so comparable between machines."""


def spread(
    key: str, values: Sequence[float], unit: str, better: str, *, relative: bool = False
) -> Figure:
    """Return the median, smallest and largest of repeated measurements."""
    middle = statistics.median(values)
    return Figure(key, middle, unit, better, min(values), max(values), len(values), relative)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows for the report."""

    title: str
    """What the rows are."""
    columns: tuple[str, ...]
    """Heads; the first column holds names."""
    rows: tuple[tuple[Cell, ...], ...]
    """Cells."""
    note: str = ""
    """What a reader needs to know."""


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines or bars for the report."""

    title: str
    """What is shown."""
    kind: str
    """``bars`` or ``lines``."""
    x: str
    """Label of the horizontal axis."""
    y: str
    """Label of the vertical axis."""
    series: Mapping[str, Sequence[tuple[float | str, float]]]
    """Points of each line, or (name, length) of each bar."""
    logarithmic: bool = False
    """Whether values span decades."""
    level: float | None = None
    """Value that is marked by a line, such as a target."""
    note: str = ""
    """What a reader should see in it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One claim with its limit."""

    claim: str
    """What we hold ourselves to."""
    value: float
    """What was found."""
    limit: float
    """The limit."""
    at_most: bool = True
    """Whether the limit is an upper one."""
    unit: str = "x"
    """Unit of both."""
    judged: bool = True
    """Whether sizes are large enough to judge by; else the value is only shown."""

    @property
    def met(self) -> bool:
        """Whether the claim holds."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


@dataclass(frozen=True, slots=True)
class PartResult:
    """All that one part found."""

    name: str
    """Name of the part."""
    title: str
    """Heading."""
    text: str
    """What was done, in a few sentences."""
    figures: tuple[Figure, ...] = ()
    """Numbers that go into the history."""
    tables: tuple[Table, ...] = ()
    """Tables of the report."""
    plots: tuple[Plot, ...] = ()
    """Plots of the report."""
    checks: tuple[Check, ...] = ()
    """Claims and whether they hold."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """What was left out, and why."""
    seconds: float = 0.0
    """Wall time of the part."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        plain = asdict(self)
        for check, plain_check in zip(self.checks, plain["checks"], strict=True):
            plain_check["met"] = check.met
        return plain
