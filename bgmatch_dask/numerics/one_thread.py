"""One thread for linear algebra, also where several threads of a process ask for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

__all__ = ("one_thread",)


class _Holders:
    """How many contexts are open, and what the first of them has changed."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.number = 0
        self.limits: threadpool_limits | None = None


_HOLDERS = _Holders()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let libraries of linear algebra work with one thread inside the context.

    The sum of a product depends on how many threads share it. The setting is one of the process:
    where two runs of a process work at once, the first to leave must not give the other its
    threads back in the middle of a solution.
    """
    with _HOLDERS.guard:
        if not _HOLDERS.number:
            _HOLDERS.limits = threadpool_limits(1)
        _HOLDERS.number += 1
    try:
        yield
    finally:
        with _HOLDERS.guard:
            _HOLDERS.number -= 1
            if not _HOLDERS.number and _HOLDERS.limits is not None:
                _HOLDERS.limits.restore_original_limits()
