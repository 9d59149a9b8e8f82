"""How many bytes this thread has moved: input files, and arrays from and to the store."""

from __future__ import annotations

import threading

__all__ = ("add_traffic", "take_traffic")


class _Counter(threading.local):
    n_bytes = 0


_MOVED = _Counter()


def add_traffic(n_bytes: int) -> None:
    """Count bytes that were read or written (of arrays: before compression)."""
    _MOVED.n_bytes += n_bytes


def take_traffic() -> int:
    """Return the bytes that this thread has moved since it was last asked."""
    moved, _MOVED.n_bytes = _MOVED.n_bytes, 0
    return moved
