"""One thread for linear algebra, also where several threads of a process ask for it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

__all__ = ("one_thread",)

_TURN = 1e-4
"""A thread that comes out of a product waits this long for one that computes in Python [s]."""


class _Holders:
    """How many contexts are open, and what the first of them has changed."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.number = 0
        self.limits: threadpool_limits | None = None
        self.turn = 0.0

    def begin(self) -> None:
        self.limits = threadpool_limits(1)
        self.turn = sys.getswitchinterval()
        sys.setswitchinterval(min(_TURN, self.turn))

    def end(self) -> None:
        if self.limits is not None:
            self.limits.restore_original_limits()
        sys.setswitchinterval(self.turn)


_HOLDERS = _Holders()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let libraries of linear algebra work with one thread inside the context.

    The sum of a product depends on how many threads share it. Threads of Python that work inside
    take short turns instead: most of their work is done without the interpreter's lock, for which
    they would wait as long as such work takes. Both are settings of the process: where two runs of
    a process work at once, the first to leave must not give the other its threads back in the
    middle of a solution.
    """
    with _HOLDERS.guard:
        if not _HOLDERS.number:
            _HOLDERS.begin()
        _HOLDERS.number += 1
    try:
        yield
    finally:
        with _HOLDERS.guard:
            _HOLDERS.number -= 1
            if not _HOLDERS.number:
                _HOLDERS.end()
