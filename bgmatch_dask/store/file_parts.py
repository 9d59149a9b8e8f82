"""Parts of local files, read into memory that serves again and again.

The storage client hands each part to threads of its own and into fresh memory, which takes several
times as long as the copy from the cache of the system.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ("read_last", "read_parts")


class _Memory(threading.local):
    def __init__(self) -> None:
        self.data = bytearray()


_MEMORY = _Memory()


def read_parts(path: Path, starts: Sequence[int], ends: Sequence[int]) -> Iterator[memoryview]:
    """Yield the bytes of a file from some first to some last positions, fewer if it is shorter.

    Each part holds until the next one of this thread is asked for.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    """
    largest = max((end - start for start, end in zip(starts, ends, strict=True)), default=0)
    if len(_MEMORY.data) < largest:
        _MEMORY.data = bytearray(largest)
    memory = memoryview(_MEMORY.data)
    with path.open("rb", buffering=0) as file:
        for start, end in zip(starts, ends, strict=True):
            file.seek(start)
            yield memory[: _fill(file.readinto, memory[: end - start])]


def _fill(readinto: Callable[[memoryview], int | None], part: memoryview) -> int:
    n = 0
    while n < len(part):
        more = readinto(part[n:])
        if not more:
            break
        n += more
    return n


def read_last(path: Path, size: int) -> bytes:
    """Return the last bytes of a file, all of a shorter one.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    """
    with path.open("rb", buffering=0) as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(length - size, 0))
        return file.read(size)
