"""Two engines that do the same work: one after the other here, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from secrets import token_hex
from typing import Any, Protocol, TypeVar

from distributed import Client, as_completed

__all__ = ("DaskEngine", "Engine", "SerialEngine")

Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs the units of a stage, in any order."""

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], name: str
    ) -> Iterator[Result]:
        """Yield the result of ``function`` for every task, as they finish."""
        ...


class SerialEngine:
    """Runs every unit in this process, in order; the yardstick of the parity test."""

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], name: str
    ) -> Iterator[Result]:
        """Yield the results in the order of the tasks."""
        del name
        yield from map(function, tasks)


class DaskEngine:
    """Runs units on a Dask cluster, a bounded number at a time.

    The scheduler never holds more than a few tasks per thread, so that its state does not grow
    with the job, and results are small receipts.

    Parameters
    ----------
    client
        A connected client.
    per_thread
        Tasks in flight per worker thread.
    retries
        Times that a unit is tried again after its worker is lost or its storage fails.
    """

    def __init__(self, client: Client, *, per_thread: int = 3, retries: int = 2) -> None:
        self.client = client
        self.per_thread = per_thread
        self.retries = retries
        # The scheduler takes two tasks of one name for one task, also from two clients.
        self._token = token_hex(6)

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], name: str
    ) -> Iterator[Result]:
        """Yield the results as they finish."""
        waiting = iter(enumerate(tasks))
        running = as_completed(with_results=True)
        self._submit(running, function, islice(waiting, self._window()), name)
        for future, result in running:
            future.release()
            self._submit(running, function, islice(waiting, 1), name)
            yield result

    def _window(self) -> int:
        threads = int(sum(self.client.nthreads().values()))
        return max(self.per_thread * threads, 1)

    def _submit(
        self,
        running: as_completed,
        function: Callable[[Task], Result],
        tasks: Iterable[tuple[int, Task]],
        name: str,
    ) -> None:
        for index, task in tasks:
            key = f"{name}-{index:06d}-{self._token}"
            future: Any = self.client.submit(
                function, task, key=key, retries=self.retries, pure=False
            )
            running.add(future)
