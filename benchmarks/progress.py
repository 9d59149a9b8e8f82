"""Tells how far a benchmark is, and when it will be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

__all__ = ("Progress",)

_TRUST = 10.0
"""Seconds of work after which the pace of this machine counts as much as the table [s]."""


class Progress:
    """Counts steps of parts and writes a line for each.

    Parameters
    ----------
    expected
        Seconds that each part takes on an ordinary machine, in the order of the run; the time left
        is that of the table at the pace of this machine so far.
    write
        Gets each line; None is silent.
    clock
        Gives seconds.
    """

    def __init__(
        self,
        expected: Mapping[str, float],
        write: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expected = dict(expected)
        self._write = write
        self._clock = clock
        self._start = clock()
        self._part = ""
        self._steps, self._begun = 1, 0
        self._done = 0.0

    def part(self, name: str) -> None:
        """Begin a part."""
        self._done += self._expected.get(self._part, 0.0)
        self._part, self._steps, self._begun = name, 1, 0

    def expect(self, steps: int) -> None:
        """Say how many steps this part has."""
        self._steps = max(steps, 1)

    def step(self, what: str) -> None:
        """Begin a step."""
        self._begun += 1
        if self._write is None:
            return
        left = self.left()
        when = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
        share = f"{min(self._begun, self._steps)}/{self._steps}"
        self._write(f"bench: {self._part} {share}, {what}; about {when} left")

    def left(self) -> float:
        """Return the seconds until the end at the pace so far."""
        total = sum(self._expected.values())
        within = min(max(self._begun - 1, 0) / self._steps, 1.0)
        done = self._done + within * self._expected.get(self._part, 0.0)
        pace = (self._clock() - self._start + _TRUST) / (done + _TRUST)
        return pace * (total - done)
