"""What goes in and out of a store: objects written, with their checksums, and bytes read.

A recording belongs to the code that runs inside it, in whatever thread Zarr does the work: the
context of a call travels with it into the event loop of Zarr.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import obstore
from blake3 import blake3
from obstore.exceptions import AlreadyExistsError
from zarr.storage import ObjectStore

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = (
    "RecordedStore",
    "Traffic",
    "Written",
    "add_traffic",
    "checksum",
    "note_delete",
    "note_read",
    "note_write",
    "recorded",
    "take_traffic",
)


class _Counter(threading.local):
    n_bytes = 0


_MOVED = _Counter()


def add_traffic(n_bytes: int) -> None:
    """Count bytes that this thread read or wrote: input files, and arrays before compression."""
    _MOVED.n_bytes += n_bytes


def take_traffic() -> int:
    """Return the bytes that this thread has moved since it was last asked."""
    moved, _MOVED.n_bytes = _MOVED.n_bytes, 0
    return moved


@dataclass(frozen=True, slots=True)
class Written:
    """One object as it was written."""

    name: str
    """Path below the store."""
    size: int
    """Bytes."""
    checksum: str
    """Checksum of the bytes, see `checksum`."""

    @property
    def row(self) -> tuple[str, int, str]:
        """All of it, as records list it."""
        return self.name, self.size, self.checksum


@dataclass(slots=True)
class Traffic:
    """Objects written and bytes read while a recording lasted."""

    objects: dict[str, Written] = field(default_factory=dict)
    """The last state of every object that was written."""
    read: dict[str, int] = field(default_factory=dict)
    """Bytes read of every object."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def written(self) -> tuple[Written, ...]:
        """The objects that were written, by name."""
        return tuple(self.objects[name] for name in sorted(self.objects))

    @property
    def read_bytes(self) -> int:
        """All bytes read."""
        return sum(self.read.values())

    def add_read(self, name: str, size: int) -> None:
        """Count bytes read of an object."""
        with self._lock:
            self.read[name] = self.read.get(name, 0) + size

    def add_written(self, item: Written) -> None:
        """Keep the newest state of an object."""
        with self._lock:
            self.objects[item.name] = item

    def add_deleted(self, name: str) -> None:
        """Forget an object that was deleted again."""
        with self._lock:
            self.objects.pop(name, None)


_RECORDINGS: ContextVar[tuple[Traffic, ...]] = ContextVar("bgmatch_recordings", default=())


@contextmanager
def recorded() -> Iterator[Traffic]:
    """Record the traffic of all stores that the code inside touches; recordings may nest."""
    traffic = Traffic()
    token = _RECORDINGS.set((*_RECORDINGS.get(), traffic))
    try:
        yield traffic
    finally:
        _RECORDINGS.reset(token)


def checksum(*parts: Any) -> str:  # noqa: ANN401
    """Return the first 128 bits of the BLAKE3 digest of bytes that follow each other, in hex."""
    digest = blake3()
    for part in parts:
        digest.update(part)
    return digest.hexdigest(16)


def note_read(name: str, size: int) -> None:
    """Tell the recordings around this call that bytes of an object were read."""
    for traffic in _RECORDINGS.get():
        traffic.add_read(name, size)


def note_write(name: str, *parts: Any) -> None:  # noqa: ANN401
    """Tell the recordings around this call that an object was written, from parts in a row."""
    recordings = _RECORDINGS.get()
    if recordings:
        size = sum(memoryview(part).nbytes for part in parts)
        item = Written(name, size, checksum(*parts))
        for traffic in recordings:
            traffic.add_written(item)


def note_delete(name: str) -> None:
    """Tell the recordings around this call that an object was deleted."""
    for traffic in _RECORDINGS.get():
        traffic.add_deleted(name)


class RecordedStore(ObjectStore[Any]):
    """The Zarr store of obstore, whose traffic can be recorded."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object or a part of it, None when it is missing."""
        found = await super().get(key, prototype, byte_range)
        if found is not None:
            note_read(key, len(found))
        return found

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return parts of objects."""
        ranges = list(key_ranges)
        found = await super().get_partial_values(prototype, ranges)
        for (key, _), part in zip(ranges, found, strict=True):
            if part is not None:
                note_read(key, len(part))
        return found

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object in one step."""
        await super().set(key, value)
        note_write(key, value.as_buffer_like())

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object unless it is there."""
        data = value.as_buffer_like()
        try:
            await obstore.put_async(self.store, key, data, mode="create")
        except AlreadyExistsError:
            return
        note_write(key, data)

    async def delete(self, key: str) -> None:
        """Delete an object; one that is not there is as good as deleted."""
        await super().delete(key)
        note_delete(key)
