"""What this machine gives two processes at once: the most that two workers can gain."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor

import numpy as np

from benchmarks.results import Table

__all__ = ("gains",)

_PIXELS = 4_000_000
"""float32 pixels of an array that no cache holds."""


def _sort(repeats: int) -> float:
    values = np.random.default_rng(0).random(20_000)
    start = time.perf_counter()
    for _ in range(12 * repeats):
        np.sort(values)
    return time.perf_counter() - start


def _copy(repeats: int) -> float:
    values = np.ones(_PIXELS, np.float32)
    out = values.copy()
    start = time.perf_counter()
    for _ in range(4 * repeats):
        np.copyto(out, values)
    return time.perf_counter() - start


def _fresh(repeats: int) -> float:
    start = time.perf_counter()
    values = np.empty(_PIXELS * repeats // 4, np.float32)
    values.fill(1)
    return time.perf_counter() - start


_PROBES: Mapping[str, Callable[[int], float]] = {
    "sorting in the cache": _sort,
    "copying arrays in memory": _copy,
    "first use of memory": _fresh,
}
_LEAD = 0.2
"""Seconds within which both processes have begun to wait."""


def _timed(name: str, repeats: int, start: float) -> float:
    """Run a probe at an agreed time: a process that waits cannot take the other's work too."""
    time.sleep(max(start - time.time(), 0.0))
    return _PROBES[name](repeats)


def gains(pool: Executor, repeats: int, pause: float) -> Table:
    """Measure how much two processes do in the time that one takes.

    Parameters
    ----------
    pool
        Two processes.
    repeats
        Amount of work.
    pause
        Seconds before each measurement: some virtual machines give memory that is not used back to
        their host meanwhile, and have to ask for it again.
    """
    rows = []
    for name in _PROBES:
        one, two = (
            max(pool.map(_timed, n * [name], n * [repeats], n * [time.time() + _LEAD + pause]))
            for n in (1, 2)
        )
        rows.append((name, one, two, 2 * one / two))
    return Table(
        "One process and two, without any of our code",
        ("work", "one alone [s]", "two at once [s]", "gain ×"),
        tuple(rows),
        "Two workers gain what their work gains here: stages that move arrays gain less than "
        "those that compute. First use of memory, for arrays or for files, is slow on virtual "
        "machines that hand unused memory back to their host.",
    )
