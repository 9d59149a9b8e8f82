"""Writes the plane of a patch chunk by chunk, so that it is never held as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.errors import StoreError
from bgmatch_dask.store.shards import ShardBuilder
from bgmatch_dask.store.traffic import add_traffic

if TYPE_CHECKING:
    from bgmatch_dask.store.planes import TractStore

__all__ = ("PlaneWriter",)


class PlaneWriter:
    """Writes one plane of a (patch, y, x) array by chunks; nothing is stored before its end.

    Chunks that are not given hold the fill value.

    Parameters
    ----------
    store
        An open store.
    path
        The array.
    patch
        Place on the patch axis.
    """

    def __init__(self, store: TractStore, path: str, patch: int) -> None:
        self.store, self.path, self.patch = store, path, patch
        array = store.array(path)
        self.shape, self.dtype = (array.shape[-2], array.shape[-1]), array.dtype
        self.chunk = (array.chunks[-2], array.chunks[-1])
        codec = store.codec(path)
        self._shard = None if codec is None else ShardBuilder(codec)
        self._whole: NDArray[Any] | None = None
        if self._shard is None:
            self._whole = np.full(self.shape, array.fill_value, self.dtype)

    def add(self, place: tuple[int, int], chunk: NDArray[Any]) -> None:
        """Take a chunk, C order, by its row and column among the chunks.

        Raises
        ------
        StoreError
            ``write-misaligned``.
        """
        first = tuple(at * step for at, step in zip(place, self.chunk, strict=True))
        inside = all(0 <= at < size for at, size in zip(first, self.shape, strict=True))
        if chunk.shape != self.chunk or chunk.dtype != self.dtype or not inside:
            raise StoreError(
                "write-misaligned",
                f"{self.path} takes chunks of {self.chunk} {self.dtype} of {self.shape} pixels; "
                f"got {chunk.shape} {chunk.dtype} at {place}",
                where=self.store.location.url,
            )
        if self._shard is not None:
            self._shard.add(place, chunk)
        elif self._whole is not None:
            top, left = first
            self._whole[top : top + self.chunk[0], left : left + self.chunk[1]] = chunk

    def write(self) -> None:
        """Write the plane as one object.

        Raises
        ------
        StoreError
            ``store-write`` when the place refuses.
        """
        if self._shard is not None:
            self.store.put_shard(self.path, (self.patch,), self._shard.finish())
            add_traffic(self.shape[0] * self.shape[1] * self.dtype.itemsize)
        elif self._whole is not None:
            self.store.write_patch_plane(self.path, self.patch, self._whole)
