"""Writes the plane of a patch from the top, so that it is never held as a whole."""

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
    """Writes one plane of a (patch, y, x) array from the top; nothing is stored before its end.

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
        self.dtype, self.fill = array.dtype, array.fill_value
        codec = store.codec(path)
        self._shard = None if codec is None else ShardBuilder(codec)
        self._rows: list[NDArray[Any]] = []
        self._taken, self._height, self._width = 0, array.shape[-2], array.shape[-1]
        self._step = array.chunks[-2]

    def add(self, rows: NDArray[Any]) -> None:
        """Take the next rows: whole chunks of them, of the width and dtype of the plane.

        Raises
        ------
        StoreError
            ``write-misaligned``.
        """
        self._taken += len(rows)
        if (
            rows.shape[1:] != (self._width,)
            or rows.dtype != self.dtype
            or len(rows) % self._step
            or self._taken > self._height
        ):
            raise self._misaligned(f"got {rows.shape} {rows.dtype}")
        if self._shard is None:
            self._rows.append(rows)
        else:
            self._shard.add(rows)

    def write(self) -> None:
        """Write the plane as one object.

        Raises
        ------
        StoreError
            ``write-misaligned`` when rows are missing, ``store-write`` when the place refuses.
        """
        if self._taken != self._height:
            raise self._misaligned(f"got {self._taken} rows")
        if self._shard is None:
            self.store.write_patch_plane(self.path, self.patch, np.concatenate(self._rows))
        else:
            self.store.put_shard(self.path, (self.patch,), self._shard.finish())
            add_traffic(self._height * self._width * self.dtype.itemsize)

    def _misaligned(self, what: str) -> StoreError:
        return StoreError(
            "write-misaligned",
            f"{self.path} takes {self._height} rows of {self._width} {self.dtype}, {self._step} at "
            f"a time; {what}",
            where=self.store.location.url,
        )
