"""Units that are over soon go to a worker together: the messages of a unit cost milliseconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ("Done", "Queue", "Together")

Task = TypeVar("Task")
Result = TypeVar("Result")

_SECONDS = 0.25
"""Work that goes to a worker in one message, about: people want to see units end."""
_ARRIVALS = 4
"""Messages of which the slowest tells how long a unit takes."""


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """What came of some tasks."""

    results: tuple[Result, ...]
    """Results of the first tasks; a task that failed and what follows it have none."""
    seconds: float
    """Time that they took."""


@dataclass(frozen=True, slots=True)
class Together(Generic[Task, Result]):
    """Carries out tasks one after the other, on a worker."""

    function: Callable[[Task], Result]
    """Carries out one task."""

    def __call__(self, tasks: Sequence[Task]) -> Done[Result]:
        """Return the results up to the first failure; raise it when it is that of the first."""
        start = time.perf_counter()
        results: list[Result] = []
        for task in tasks:
            try:
                results.append(self.function(task))
            except Exception:
                if not results:
                    raise
                # It is tried again alone, so that it is told of as any other.
                break
        return Done(tuple(results), time.perf_counter() - start)


class Queue(Generic[Task]):
    """Tasks that wait, and how many of them go together.

    The last ones go alone, so that no worker waits long for another to end.

    Parameters
    ----------
    tasks
        All tasks, in their order.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._waiting = deque(tasks)
        self._alone: deque[Task] = deque()
        self._seconds: deque[float] = deque(maxlen=_ARRIVALS)

    def again(self, tasks: Sequence[Task]) -> None:
        """Let tasks that were not carried out go next, each alone."""
        self._alone.extend(tasks)

    def note(self, done: Done[Any]) -> None:
        """Learn from what came back how long a task takes."""
        self._seconds.append(done.seconds / len(done.results))

    def take(self, count: int, threads: int) -> list[tuple[Task, ...]]:
        """Return up to ``count`` batches, for a number of threads that work on them."""
        batches: list[tuple[Task, ...]] = []
        while len(batches) < count and (self._alone or self._waiting):
            if self._alone:
                batches.append((self._alone.popleft(),))
                continue
            size = min(self._size(threads), len(self._waiting))
            batches.append(tuple(self._waiting.popleft() for _ in range(size)))
        return batches

    def _size(self, threads: int) -> int:
        if len(self._seconds) < _ARRIVALS:
            return 1
        fair = len(self._waiting) // (2 * max(threads, 1))
        return max(min(int(_SECONDS / max(*self._seconds, 1e-6)), fair), 1)
