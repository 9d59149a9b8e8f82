"""The bytes of one shard, made and read in this thread.

Zarr hands every chunk to its event loop and from there to a thread, and copies it several times on
the way: for the plane of a warp that takes as long again as the codecs themselves. The arrays of a
store are all of one make (see `bgmatch_dask.store.layout`), so that their shards can be put
together here. Zarr reads what is written here, and the other way round.

Format: Zarr v3 core specification and its codecs ``sharding_indexed``, ``blosc`` and ``crc32c``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray
from zarr.codecs import ShardingCodec

__all__ = ("ChunkCodec", "ShardBuilder", "ShardCodec")

_MISSING = 2**64 - 1
_SAMPLE = 4099
"""Distance of the first numbers that are looked at; a prime, so that they are of all columns."""
_CHECK = 4
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_CODECS = ("bytes", "blosc", "crc32c")
_INDEX_CODECS = ("bytes", "crc32c")

Window = tuple[slice, slice]
Ranges = Callable[[Sequence[int], Sequence[int]], Iterable[Any]]
"""Gives the bytes from some first to some last positions of an object."""


@dataclass(frozen=True, slots=True)
class ShardCodec:
    """How the plane of a warp or of a patch becomes one object."""

    shape: tuple[int, int]
    """Rows and columns of the plane."""
    chunk: tuple[int, int]
    """Rows and columns of a chunk; they divide the plane."""
    dtype: np.dtype[Any]
    """Type of the pixels."""
    fill: Any
    """Value of pixels of chunks that are not stored."""
    blosc: Blosc
    """Compressor."""

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ShardCodec | None:
        """Return the codec of an array whose shards are whole planes; None for any other array."""
        codecs: tuple[Any, ...] = getattr(array.metadata, "codecs", ())
        if len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec) or array.ndim < 2:
            return None
        sharding = codecs[0]
        inner = [codec.to_dict() for codec in sharding.codecs]
        index = [codec.to_dict() for codec in sharding.index_codecs]
        plain = (
            tuple(codec["name"] for codec in inner) == _CODECS
            and tuple(codec["name"] for codec in index) == _INDEX_CODECS
            and sharding.index_location.value == "end"
            and array.shards == (*(1,) * (array.ndim - 2), *array.shape[-2:])
            and sys.byteorder == "little"
            and inner[0].get("configuration", {}) in ({}, {"endian": "little"})
        )
        if not plain:
            return None
        blosc = _blosc_of(inner[1])
        height, width = array.shape[-2:]
        rows, columns = sharding.chunk_shape[-2:]
        return cls((height, width), (rows, columns), array.dtype, array.fill_value, blosc)

    @property
    def grid(self) -> tuple[int, int]:
        """Chunks along both axes."""
        return self.shape[0] // self.chunk[0], self.shape[1] // self.chunk[1]

    @property
    def index_size(self) -> int:
        """Bytes of the index at the end of a shard."""
        return 16 * self.grid[0] * self.grid[1] + _CHECK

    def encode(self, values: NDArray[Any], window: Window | None = None) -> Sequence[bytes] | None:
        """Return a whole plane as the parts of its shard; as `ShardBuilder.finish`.

        Parameters
        ----------
        values
            Pixels of the plane, or of a part of it.
        window
            Rows and columns of that part; the others hold the fill value.
        """
        shard = ShardBuilder(self)
        rows, columns = (slice(0, n) for n in self.shape) if window is None else window
        for row, column in np.ndindex(*self.grid):
            chunk = self._chunk_of(values, (rows, columns), (row, column))
            if chunk is not None:
                shard.add((row, column), chunk)
        return shard.finish()

    def _chunk_of(
        self, values: NDArray[Any], window: Window, place: tuple[int, int]
    ) -> NDArray[Any] | None:
        """Return a chunk of a plane that holds values in a window; None where it has none."""
        inside, part = [], []
        for lines, index, length in zip(window, place, self.chunk, strict=True):
            start = index * length
            low, high = max(lines.start, start), min(lines.stop, start + length)
            if low >= high:
                return None
            inside.append(slice(low - start, high - start))
            part.append(slice(low - lines.start, high - lines.start))
        found = values[part[0], part[1]]
        if found.shape == self.chunk:
            return np.ascontiguousarray(found)
        chunk = np.empty(self.chunk, self.dtype)
        rows, columns = inside
        chunk[rows, columns] = found
        chunk[: rows.start] = chunk[rows.stop :] = self.fill
        chunk[rows, : columns.start] = chunk[rows, columns.stop :] = self.fill
        return chunk

    def needs_all(self, window: Window) -> bool:
        """Whether a part of a plane touches all chunks, so that the whole shard may be read."""
        return len(self._touched(window)) == self.grid[0] * self.grid[1]

    def decode(
        self,
        data: Any,  # noqa: ANN401
        window: Window,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Return a part of a plane from the bytes of its whole shard.

        Raises
        ------
        ValueError
            When the bytes are not those of a shard of this make.
        """
        view = memoryview(data)

        def ranges(starts: Sequence[int], ends: Sequence[int]) -> Sequence[Any]:
            return [view[start:end] for start, end in zip(starts, ends, strict=True)]

        return self.decode_ranges(view[-self.index_size :], ranges, window, out)

    def place(self, window: Window, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return memory for a part of a plane: ``out`` if there is one, of the right shape."""
        shape = tuple(len(range(*p.indices(n))) for p, n in zip(window, self.shape, strict=True))
        if out is None:
            return np.empty(shape, self.dtype)
        if out.shape != shape or out.dtype != self.dtype:
            raise TypeError(f"{shape} {self.dtype} do not fit in {out.shape} {out.dtype}")
        return out

    def decode_ranges(
        self,
        index: Any,  # noqa: ANN401
        ranges: Ranges,
        window: Window,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Return a part of a plane from the index of its shard and the chunks that it touches.

        Parameters
        ----------
        index
            The last `index_size` bytes of the shard.
        ranges
            Gives further bytes of it.
        window
            Rows and columns.
        out
            Where the pixels go; whole chunks in C order are decoded in place.

        Raises
        ------
        ValueError
            As `decode`.
        """
        entries = self._entries(index)
        out = self.place(window, out)
        stored: list[tuple[tuple[int, int], int, int]] = []
        for place in self._touched(window):
            if entries[place][0] == _MISSING:
                self._put(out, place, window, None)
            else:
                start, size = entries[place].tolist()
                stored.append((place, start, size))
        if stored:
            # One after the other: the next part may come in the memory of the one before.
            parts = ranges([s for _, s, _ in stored], [s + n for _, s, n in stored])
            for (place, _, size), part in zip(stored, parts, strict=True):
                self._put(out, place, window, self._checked(part, size))
        return out

    def _put(
        self,
        out: NDArray[Any],
        place: tuple[int, int],
        window: Window,
        packed: memoryview | None,
    ) -> None:
        """Put the common pixels of a chunk and a window into the window."""
        target, source = [], []
        for axis in (0, 1):
            first, last, _ = window[axis].indices(self.shape[axis])
            start = place[axis] * self.chunk[axis]
            low, high = max(first, start), min(last, start + self.chunk[axis])
            target.append(slice(low - first, high - first))
            source.append(slice(low - start, high - start))
        part = out[target[0], target[1]]
        if packed is None:
            part[...] = self.fill
        elif part.shape == self.chunk and part.flags.c_contiguous:
            self.blosc.decode(packed, out=part)
        else:
            chunk = np.empty(self.chunk, self.dtype)
            self.blosc.decode(packed, out=chunk)
            part[...] = chunk[source[0], source[1]]

    def _touched(self, window: Window) -> list[tuple[int, int]]:
        lines = []
        for part, length, step in zip(window, self.shape, self.chunk, strict=True):
            first, last, _ = part.indices(length)
            lines.append(range(first // step, -(-last // step)))
        return [(row, column) for row in lines[0] for column in lines[1]]

    def _entries(self, index: Any) -> NDArray[np.uint64]:  # noqa: ANN401
        if len(index) != self.index_size:
            raise ValueError(f"the shard has {len(index)} bytes, less than its index")
        table = _compare(memoryview(index), "the index of the shard")
        return np.frombuffer(table, "<u8").reshape(*self.grid, 2)

    def _checked(self, part: Any, size: int) -> memoryview:  # noqa: ANN401
        """Return a compressed chunk whose checksum and size are right."""
        if len(part) != size or size < _CHECK + 16:
            raise ValueError(f"a chunk has {len(part)} bytes, its index says {size}")
        packed = _compare(memoryview(part), "a chunk")
        size = self.dtype.itemsize * self.chunk[0] * self.chunk[1]
        if int.from_bytes(packed[4:8], "little") != size:
            raise ValueError("a chunk has another size than the array says")
        return packed


class ShardBuilder:
    """A shard that is made chunk by chunk.

    Parameters
    ----------
    codec
        How the plane is stored.
    """

    def __init__(self, codec: ShardCodec) -> None:
        self.codec = codec
        self._index = np.full((*codec.grid, 2), _MISSING, "<u8")
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, place: tuple[int, int], chunk: NDArray[Any]) -> None:
        """Add a chunk, C order, by its row and column among the chunks."""
        if not _is_fill(chunk, self.codec.fill):
            self._append(self.codec.blosc.encode(chunk), place)

    def _append(self, packed: bytes, place: tuple[int, int]) -> None:
        self._parts += [packed, _check(packed)]
        self._index[place] = self._size, len(packed) + _CHECK
        self._size += len(packed) + _CHECK

    def finish(self) -> Sequence[bytes] | None:
        """Return the shard as parts that follow each other: joined, they would be copied.

        None when it holds nothing but the fill value.
        """
        if not self._parts:
            return None
        table = self._index.tobytes()
        return [*self._parts, table, _check(table)]


@dataclass(frozen=True, slots=True)
class ChunkCodec:
    """How a small array that is one chunk becomes one object."""

    shape: tuple[int, ...]
    """Shape of the chunk without the leading axes of length one."""
    dtype: np.dtype[Any]
    """Type of the numbers."""
    fill: Any
    """Value of a chunk that is not stored."""
    blosc: Blosc
    """Compressor."""

    @classmethod
    def of(cls, array: zarr.Array[Any], leading: int) -> ChunkCodec | None:
        """Return the codec of an array whose chunks are whole but for some first axes."""
        codecs = [codec.to_dict() for codec in getattr(array.metadata, "codecs", ())]
        plain = (
            tuple(codec["name"] for codec in codecs) == _CODECS
            and array.chunks == (*(1,) * leading, *array.shape[leading:])
            and sys.byteorder == "little"
            and codecs[0].get("configuration", {}) in ({}, {"endian": "little"})
        )
        if not plain:
            return None
        shape = array.shape[leading:]
        return cls(shape, array.dtype, array.fill_value, _blosc_of(codecs[1]))

    def encode(self, values: NDArray[Any]) -> bytes | None:
        """Return the bytes of a chunk, None when it holds nothing but the fill value."""
        chunk = np.ascontiguousarray(values, self.dtype)
        if _is_fill(chunk, self.fill):
            return None
        packed: bytes = self.blosc.encode(chunk)
        return packed + _check(packed)

    def decode(self, data: Any) -> NDArray[Any]:  # noqa: ANN401
        """Return the numbers of a chunk.

        Raises
        ------
        ValueError
            When the bytes are not those of a chunk of this make.
        """
        out = np.empty(self.shape, self.dtype)
        if len(data) < _CHECK + 16:
            raise ValueError(f"a chunk has {len(data)} bytes")
        packed = _compare(memoryview(data), "a chunk")
        if int.from_bytes(packed[4:8], "little") != out.nbytes:
            raise ValueError("a chunk has another size than the array says")
        self.blosc.decode(packed, out=out)
        return out


def _blosc_of(codec: Any) -> Blosc:  # noqa: ANN401
    options = codec["configuration"]
    return Blosc(
        cname=options["cname"],
        clevel=options["clevel"],
        shuffle=_SHUFFLES[options["shuffle"]],
        blocksize=options["blocksize"],
    )


def _is_fill(chunk: NDArray[Any], fill: Any) -> bool:  # noqa: ANN401
    """Whether all numbers of a chunk are the fill value; few are looked at where some are not."""
    flat = chunk.reshape(-1)
    if chunk.dtype.kind == "f" and np.isnan(fill):
        return bool(np.isnan(flat[::_SAMPLE]).all() and np.isnan(flat).all())
    # Bit by bit: a negative zero is not the positive one.
    bits = f"u{chunk.dtype.itemsize}"
    whole, wanted = flat.view(bits), np.asarray(fill, chunk.dtype).view(bits)
    return bool((whole[::_SAMPLE] == wanted).all() and (whole == wanted).all())


def _compare(data: memoryview, what: str) -> memoryview:
    """Return bytes without the checksum at their end, which has to be right."""
    if _check(data[:-_CHECK]) != data[-_CHECK:]:
        raise ValueError(f"the checksum of {what} does not match")
    return data[:-_CHECK]


def _check(data: Any) -> bytes:  # noqa: ANN401
    return int(google_crc32c.value(np.frombuffer(data, np.uint8))).to_bytes(_CHECK, "little")
