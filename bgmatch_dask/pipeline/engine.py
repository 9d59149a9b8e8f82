"""Two engines that do the same work: one after the other here, or on a Dask cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from itertools import count
from secrets import token_hex
from typing import Any, Protocol, TypeVar

from distributed import Client, Future, as_completed
from distributed.client import ClosedClientError
from distributed.scheduler import KilledWorker

from bgmatch_dask.errors import ClusterError
from bgmatch_dask.pipeline.together import Queue, Together

__all__ = ("DaskEngine", "Engine", "SerialEngine", "asking", "check_memory")

_COUNT_SECONDS = 5.0
"""How often the threads of the cluster are counted."""

_WAIT_SECONDS = 0.1
"""How long to wait for a unit before looking up, as Dask itself does."""

_CANCELLED = (CancelledError, asyncio.CancelledError)
"""What futures say once the scheduler is gone; the two are no kin."""

Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs the units of a stage, in any order."""

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], name: str
    ) -> Iterator[Result]:
        """Yield the result of ``function`` for every task, as they finish."""
        ...

    def worker_limit(self) -> int | None:
        """Return the memory of the smallest worker [bytes], None where there is no limit."""
        ...


class SerialEngine:
    """Runs every unit in this process, in order; the yardstick of the parity test."""

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], name: str
    ) -> Iterator[Result]:
        """Yield the results in the order of the tasks."""
        del name
        yield from map(function, tasks)

    def worker_limit(self) -> int | None:
        """Return None: this process takes what it needs."""
        return None


class DaskEngine:
    """Runs units on a Dask cluster, a bounded number at a time, short ones several in a task.

    The scheduler never holds more than a few tasks per thread, so that its state does not grow
    with the job, and results are small receipts. A unit whose worker is lost is run again by
    the scheduler; one that loses several workers in a row is given up.

    Parameters
    ----------
    client
        A connected client.
    per_thread
        Tasks in flight per worker thread.
    threads
        Threads to keep busy even if there are fewer now: what an adaptive cluster can grow to.
    while_waiting
        Called now and then while no unit ends; what it raises stops the stage.
    """

    def __init__(
        self,
        client: Client,
        *,
        per_thread: int = 3,
        threads: int = 0,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self.client = client
        self.per_thread = per_thread
        self.threads = threads
        self.while_waiting = while_waiting
        self._counted = (0, -_COUNT_SECONDS)
        # The scheduler takes two tasks of one name for one task, also from two clients.
        self._token = token_hex(6)
        self._numbers = count()

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], name: str
    ) -> Iterator[Result]:
        """Yield the results as they finish.

        Raises
        ------
        ClusterError
            ``worker-memory`` or ``worker-lost`` when a unit ends every worker that tries it,
            ``scheduler-lost`` when the scheduler is gone.
        """
        queue = Queue(tasks)
        work = Together(function)
        running = as_completed(loop=self.client.loop, with_results=True, raise_errors=False)
        flying: dict[Future[Any], tuple[Task, ...]] = {}
        try:
            with asking(self.client, name):
                self._submit(running, flying, work, self._next(queue, self._window()), name)
            for future, result in self._arrivals(running):
                results = self._results(flying.pop(future), result, queue, name)
                with asking(self.client, name):
                    future.release()
                    free = self._window() - len(flying)
                    # A message for every task would keep the scheduler of a large cluster busy.
                    if free * self.per_thread >= self._window():
                        self._submit(running, flying, work, self._next(queue, free), name)
                yield from results
        finally:
            if flying and self.client.status == "running":
                # One that is gone has nothing to cancel, and must not hide why we stop.
                with suppress(ClusterError), asking(self.client, name):
                    self.client.cancel(list(flying))

    def _arrivals(self, running: as_completed) -> Iterator[tuple[Future[Any], Any]]:
        while not running.is_empty():
            if running.has_ready():
                yield next(running)
                continue
            self.while_waiting()
            with running.thread_condition:
                running.thread_condition.wait(timeout=_WAIT_SECONDS)

    def worker_limit(self) -> int | None:
        """Return the memory of the smallest worker [bytes], None where there is no limit."""
        with asking(self.client, "the look at its workers"):
            workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return min((int(w["memory_limit"]) for w in workers if w["memory_limit"]), default=None)

    def _window(self) -> int:
        """Return how many tasks may be in flight; workers come and go during a stage."""
        threads, at = self._counted
        if time.monotonic() - at >= _COUNT_SECONDS:
            threads = int(sum(self.client.nthreads().values()))
            self._counted = (threads, time.monotonic())
        return max(self.per_thread * max(threads, self.threads), 1)

    def _next(self, queue: Queue[Task], count: int) -> list[tuple[Task, ...]]:
        return queue.take(count, self._window() // self.per_thread)

    def _results(
        self,
        tasks: tuple[Task, ...],
        result: Any,  # noqa: ANN401
        queue: Queue[Task],
        stage: str,
    ) -> Sequence[Any]:
        """Return the results of tasks that came back; what is missing waits again, or is told."""
        error = _failure(result)
        if error is None:
            queue.note(result)
            queue.again(tasks[len(result.results) :])
            found: Sequence[Any] = result.results
            return found
        if len(tasks) > 1 and isinstance(error, KilledWorker):
            # Each alone, to learn which of them it is.
            queue.again(tasks)
            return ()
        raise self._explain(error, stage, str(getattr(tasks[0], "unit", tasks[0])))

    def _submit(
        self,
        running: as_completed,
        flying: dict[Future[Any], tuple[Task, ...]],
        work: Together[Task, Any],
        batches: Sequence[tuple[Task, ...]],
        name: str,
    ) -> None:
        if not batches:
            return
        numbers = [next(self._numbers) for _ in batches]
        keys = [f"{name}-{number:06d}-{self._token}" for number in numbers]
        futures = self.client.map(work, batches, key=keys, retries=0, pure=False)
        flying.update(zip(futures, batches, strict=True))
        running.update(futures)

    def _explain(self, error: BaseException, stage: str, unit: str) -> BaseException:
        """Return the error of a unit that did not finish, in our words where there are any."""
        if isinstance(error, KilledWorker):
            return self._killed(error, stage, unit)
        return _scheduler_lost(self.client, stage) if isinstance(error, _CANCELLED) else error

    def _killed(self, error: KilledWorker, stage: str, unit: str) -> ClusterError:
        limit = int(getattr(error.last_worker, "memory_limit", 0) or 0)
        used = self._largest_restart()
        tries = error.allowed_failures + 1
        if not used:
            return ClusterError(
                "worker-lost",
                f"Unit {unit} of {stage} was tried {tries} times, and its worker died each time",
                where=error.last_worker.address,
                fix="Look into the logs of the workers; the system may have ended them.",
            )
        return ClusterError(
            "worker-memory",
            f"Unit {unit} of {stage} ran out of memory {tries} times: it had taken "
            f"{used / 1e9:.2f} GB when it was stopped, workers have {limit / 1e9:.2f} GB",
            where=error.last_worker.address,
            fix="Raise cluster.memory_limit, or make patches smaller.",
        )

    def _largest_restart(self) -> int:
        """Return the most memory a worker had when its nanny ended it for that; 0 if none did."""
        with asking(self.client, "the look at its events"):
            events = self.client.get_events("worker-restart-memory")
        return max((int(event["rss"]) for _, event in events), default=0)


@contextmanager
def asking(client: Client, during: str) -> Iterator[None]:
    """Say in our words what a client raises whose scheduler is gone.

    Parameters
    ----------
    client
        The client that is asked inside the context.
    during
        What goes on, for people.

    Raises
    ------
    ClusterError
        ``scheduler-lost``.
    """
    try:
        yield
    except (OSError, ClosedClientError, *_CANCELLED) as error:
        raise _scheduler_lost(client, during) from error
    except RuntimeError as error:
        # A client that has given up its scheduler complains of its own closed parts.
        if client.status == "running":
            raise
        raise _scheduler_lost(client, during) from error


def _scheduler_lost(client: Client, during: str) -> ClusterError:
    return ClusterError(
        "scheduler-lost",
        f"The scheduler went away during {during}",
        where=str(getattr(client.scheduler, "address", "")),
        fix="Start it again and run the same command; what is done is not done again.",
    )


def _failure(result: Any) -> BaseException | None:  # noqa: ANN401
    """Return the error that came in place of a result, None if it is a result.

    The status of a future does not tell: the scheduler computes a result again whose worker
    dies, also when we hold it already.
    """
    if isinstance(result, tuple) and len(result) == 3:  # type, value, traceback
        result = result[1]
    return result if isinstance(result, BaseException) else None


def check_memory(engine: Engine, needed: int) -> None:
    """Refuse work that cannot fit into the workers.

    Parameters
    ----------
    engine
        Where the units run.
    needed
        Memory that one unit needs at most [bytes].

    Raises
    ------
    ClusterError
        ``memory-short``.
    """
    limit = engine.worker_limit()
    if limit is not None and needed > limit:
        raise ClusterError(
            "memory-short",
            f"A unit needs about {needed / 1e9:.2f} GB, the smallest worker has "
            f"{limit / 1e9:.2f} GB",
            fix="Raise cluster.memory_limit, or make patches smaller (tract.patch_inner).",
        )
