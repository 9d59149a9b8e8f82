"""Read and write the planes of one warp: whole shards in, any box out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from bgmatch_dask.errors import StoreError
from bgmatch_dask.geometry import Box
from bgmatch_dask.store.alignment import assert_aligned, framed
from bgmatch_dask.store.layout import TractSpec, read_spec
from bgmatch_dask.store.location import Location, bucket_missing, faults
from bgmatch_dask.store.lost import was_written
from bgmatch_dask.store.plane_writer import PlaneWriter
from bgmatch_dask.store.shards import ChunkCodec, ShardCodec
from bgmatch_dask.store.traffic import add_traffic, note_delete

__all__ = ("TractStore", "open_store")


class TractStore:
    """A tract store opened for reading and for writing whole units.

    Parameters
    ----------
    location
        Place of the store.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self.spec: TractSpec = read_spec(location)
        self._root = location.open_group()
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._codecs: dict[str, ShardCodec | None] = {}
        self._chunk_codecs: dict[str, ChunkCodec | None] = {}

    def array(self, path: str) -> zarr.Array[Any]:
        """Return an array by its path in the store.

        Raises
        ------
        StoreError
            ``array-missing`` when the store has none.
        """
        if path not in self._arrays:
            node = self._root.get(path)
            if not isinstance(node, zarr.Array):
                raise StoreError(
                    "array-missing", f"There is no array {path!r}", where=self.location.url
                )
            self._arrays[path] = node
        return self._arrays[path]

    def holds_plane(self, path: str, index: tuple[int, ...]) -> bool:
        """Whether a plane of an array was written: planes that hold nothing are not stored."""
        key = self.array(path).metadata.encode_chunk_key((*index, 0, 0))
        return self.location.exists(f"{path}/{key}")

    def patches_of(self, visit: str) -> tuple[int, ...]:
        """Return the patches on which a visit has a warp."""
        index, path = self.spec.visit_index(visit), f"{self.spec.kind}/image"
        patches = range(self.spec.geometry.patches.n_patches)
        return tuple(p for p in patches if self.holds_plane(path, (index, p)))

    def group(self, path: str) -> zarr.Group:
        """Return a group by its path, made when missing."""
        return self._root.require_group(path)

    def read(
        self,
        plane: str,
        visit: int,
        patch: int,
        box: Box,
        *,
        kind: str | None = None,
        out: NDArray[Any] | None = None,
        tables: dict[str, Any] | None = None,
    ) -> NDArray[Any]:
        """Read a box of one plane of one warp.

        Parameters
        ----------
        plane
            ``image``, ``variance`` or ``mask``.
        visit, patch
            Places on the visit and patch axes.
        box
            Tract pixels, inside the plane box of the patch.
        kind
            Kind of warp; default: the store's own.
        out
            Array of the shape and dtype of the box to read into, C order.
        tables
            Keeps the index of every shard that is read, for callers that read it in parts; of one
            that was fetched, all its bytes.

        Raises
        ------
        StoreError
            ``store-corrupt`` when stored bytes are not those that were written, or are gone.
        """
        ys, xs = box.slices_in(self.spec.geometry.patches.plane_box(patch))
        path = f"{kind or self.spec.kind}/{plane}"
        return self._read(path, (visit, patch, ys, xs), out, tables)

    def fetch(self, plane: str, visit: int, patch: int, tables: dict[str, Any]) -> str:
        """Get all bytes of the plane of a warp from a server at once, before it is read in parts.

        Returns
        -------
        str
            The name under which ``tables`` of `read` holds them now, to be dropped after the last
            part. A local file is not held, for nobody waits for its parts.
        """
        path = f"{self.spec.kind}/{plane}"
        name = self._shard_name(self.array(path), (visit, patch))
        if self.location.local_path is None and name not in tables and self.codec(path):
            with suppress(FileNotFoundError):
                tables[name] = self.location.read_range(name)
        return name

    def read_plane(self, path: str, index: tuple[int, ...]) -> NDArray[Any]:
        """Read one whole plane of an array by the places on its leading axes.

        Raises
        ------
        StoreError
            ``store-corrupt`` when stored bytes are not those that were written, or are gone.
        """
        return self._read(path, (*index, slice(None), slice(None)))

    def read_patch_plane(self, path: str, patch: int, box: Box) -> NDArray[Any]:
        """Read a box of one plane of a (patch, y, x) array; errors as `read_plane`."""
        ys, xs = box.slices_in(self.spec.geometry.patches.plane_box(patch))
        return self._read(path, (patch, ys, xs))

    def write_plane(
        self,
        plane: str,
        visit: int,
        patch: int,
        values: NDArray[Any],
        *,
        kind: str | None = None,
        box: Box | None = None,
    ) -> None:
        """Write one whole plane of one warp: exactly one shard, owned by the caller alone.

        Parameters
        ----------
        values
            Array of the dtype of the plane, and of its shape or that of ``box``.
        box
            Tract pixels that the values cover, inside the plane box of the patch; the rest of the
            plane holds its fill value. Default: all.

        Raises
        ------
        StoreError
            ``write-misaligned`` when the write would not cover whole shards.
        """
        whole = self.spec.geometry.patches.plane_box(patch)
        window = None if box in (None, whole) else box.slices_in(whole)
        self._write(f"{kind or self.spec.kind}/{plane}", (visit, patch), values, window)

    def patch_plane(self, path: str, patch: int) -> PlaneWriter:
        """Return what writes one whole plane of a (patch, y, x) array, owned by the caller alone.

        It takes the plane in rows of chunks, so that it is never held as a whole.
        """
        return PlaneWriter(self, path, patch)

    def write_patch_plane(self, path: str, patch: int, values: NDArray[Any]) -> None:
        """Write one whole plane of a (patch, y, x) array, owned by the caller alone.

        Raises
        ------
        StoreError
            ``write-misaligned`` when the write would not cover whole shards.
        """
        self._write(path, (patch,), values)

    def _write(
        self,
        path: str,
        index: tuple[int, ...],
        values: NDArray[Any],
        window: tuple[slice, slice] | None = None,
    ) -> None:
        array = self.array(path)
        lines = [slice(0, n) for n in array.shape[len(index) :]]
        shape = tuple(part.stop - part.start for part in window or lines)
        if values.shape != shape or values.dtype != array.dtype:
            raise StoreError(
                "write-misaligned",
                f"{path} takes {shape} {array.dtype}, got {values.shape} {values.dtype}",
                where=self.location.url,
            )
        region: tuple[int | slice, ...] = (*index, *lines)
        assert_aligned(array, region)
        codec = self.codec(path)
        if codec is not None:
            self.put_shard(path, index, codec.encode(values, window))
            add_traffic(values.nbytes)
            return
        try:
            with faults(self.location.url, path, "store-write"):
                array[region] = values if window is None else framed(values, window, array)
        except FileNotFoundError as error:
            raise bucket_missing(self.location.url) from error
        add_traffic(values.nbytes)

    def write_unit_sums(self, visit: int, patch: int, sums: NDArray[np.float64]) -> None:
        """Write the superpixel sums of one unit: one chunk, padded with NaN."""
        path = f"superpixels/{self.spec.kind}/units"
        array, codec = self.array(path), self._chunk_codec(path)
        full = np.full(array.shape[2:], np.nan)
        full[:, : sums.shape[1], : sums.shape[2]] = sums
        if codec is None:
            self._write(path, (visit, patch), full)
            return
        data = codec.encode(full)
        self.put_shard(path, (visit, patch), None if data is None else [data])
        add_traffic(full.nbytes)

    def read_unit_sums(self, visit: int, patch: int) -> NDArray[np.float64]:
        """Read the superpixel sums of one unit, cut to the superpixels of its inner box.

        Raises
        ------
        StoreError
            ``store-corrupt`` when stored bytes are not those that were written.
        """
        path = f"superpixels/{self.spec.kind}/units"
        ny, nx = self.spec.grid.window(self.spec.geometry.patches.inner_box(patch)).shape
        codec = self._chunk_codec(path)
        if codec is None:
            region = (visit, patch, slice(None), slice(0, ny), slice(0, nx))
            return self._read(path, region)
        try:
            data = self.location.read_range(self._shard_name(self.array(path), (visit, patch)))
            values = codec.decode(data)
        except FileNotFoundError:
            values = np.full(codec.shape, codec.fill, codec.dtype)
        except (ValueError, RuntimeError) as error:
            raise self._corrupt(path, (visit, patch), str(error)) from error
        add_traffic(values.nbytes)
        return values[:, :ny, :nx]

    def _chunk_codec(self, path: str) -> ChunkCodec | None:
        if path not in self._chunk_codecs:
            self._chunk_codecs[path] = ChunkCodec.of(self.array(path), 2)
        return self._chunk_codecs[path]

    def _read(
        self,
        path: str,
        region: tuple[int | slice, ...],
        out: NDArray[Any] | None = None,
        tables: dict[str, Any] | None = None,
    ) -> NDArray[Any]:
        array = self.array(path)
        try:
            codec = self.codec(path)
            if codec is not None:
                values = self._get_shard(array, region, codec, out, tables)
                add_traffic(values.nbytes)
                return values
            with faults(self.location.url, path, "store-read"):
                values = np.asarray(array[region])
        except (ValueError, RuntimeError) as error:
            # Checksums and codecs of Zarr raise these two for bytes that have changed.
            raise self._corrupt(path, region, str(error)) from error
        except StoreError as error:
            # No range of an object without bytes can be had, which servers call a wrong request.
            if self._is_hollow(array, region):
                raise self._corrupt(path, region, "the object is empty") from error
            raise
        # Asking a server costs a round trip, and an object without bytes gives only fill values.
        if (self.location.local_path is not None or _is_fill(array, values)) and self._is_hollow(
            array, region
        ):
            raise self._corrupt(path, region, "the object is empty")
        if _is_fill(array, values):
            name = _object_of(array, region)
            if not self.location.exists(name):
                self._refuse_lost(path, region, name)
        add_traffic(values.nbytes)
        if out is not None:
            out[...] = values
        return values

    def _refuse_lost(
        self,
        path: str,
        region: tuple[int | slice, ...],
        name: str,
        cause: Exception | None = None,
    ) -> None:
        """Refuse a missing object that a receipt speaks of: it is not an empty plane."""
        if was_written(self.location, self.spec.kind, name):
            raise self._corrupt(path, region, "the object is gone") from cause

    def codec(self, path: str) -> ShardCodec | None:
        """Return how the shards of an array are made here, None where that is left to Zarr."""
        if path not in self._codecs:
            self._codecs[path] = ShardCodec.of(self.array(path))
        return self._codecs[path]

    def put_shard(self, path: str, index: tuple[int, ...], data: Sequence[bytes] | None) -> None:
        """Write one shard from its parts; without any there is none, and it is deleted.

        Raises
        ------
        StoreError
            ``store-write`` when the place refuses.
        """
        name = self._shard_name(self.array(path), index)
        if data is None:
            self.location.delete(name)
            note_delete(name)
        else:
            self.location.write_parts(name, data)

    def _get_shard(
        self,
        array: zarr.Array[Any],
        region: tuple[int | slice, ...],
        codec: ShardCodec,
        out: NDArray[Any] | None,
        tables: dict[str, Any] | None,
    ) -> NDArray[Any]:
        index = tuple(part for part in region if isinstance(part, int))
        rows, columns = (part for part in region if isinstance(part, slice))
        name, window = self._shard_name(array, index), (rows, columns)
        try:
            known = {} if tables is None else tables
            remote = self.location.local_path is None
            if remote and name not in known and codec.needs_all(window):
                return codec.decode(self.location.read_range(name), window, out)
            if name not in known:
                known[name] = self.location.read_range(name, last=codec.index_size)
            if len(known[name]) > codec.index_size:
                return codec.decode(known[name], window, out)
            ranges = partial(self.location.read_ranges, name)
            return codec.decode_ranges(known[name], ranges, window, out)
        except FileNotFoundError as error:
            self._refuse_lost(array.path, region, name, error)
            # A plane that holds nothing is not stored.
            values = codec.place(window, out)
            values[...] = codec.fill
            return values

    @staticmethod
    def _shard_name(array: zarr.Array[Any], index: tuple[int, ...]) -> str:
        rest = (0,) * (array.ndim - len(index))
        return f"{array.path}/{array.metadata.encode_chunk_key((*index, *rest))}"

    def _is_hollow(self, array: zarr.Array[Any], region: tuple[int | slice, ...]) -> bool:
        """Whether a crash of the machine left a file without bytes, which Zarr takes for none."""
        name = _object_of(array, region)
        folder = self.location.local_path
        if folder is None:
            return self.location.size(name) == 0
        file = folder / name
        return file.is_file() and file.stat().st_size == 0

    def _corrupt(self, path: str, region: tuple[int | slice, ...], why: str) -> StoreError:
        return StoreError(
            "store-corrupt",
            f"{path}{list(region[:2])} cannot be read back: {why}",
            where=self.location.url,
            fix="`bgmatch verify --repair STORE` makes what is damaged once more.",
        )


def _object_of(array: zarr.Array[Any], region: tuple[int | slice, ...]) -> str:
    """Return the object that the first pixel of a region lies in."""
    index = tuple(part if isinstance(part, int) else 0 for part in region)
    return f"{array.path}/{array.metadata.encode_chunk_key(index)}"


def _is_fill(array: zarr.Array[Any], values: NDArray[Any]) -> bool:
    same = values == array.fill_value
    return bool(np.all(same | np.isnan(values) if values.dtype.kind == "f" else same))


def open_store(url: str) -> TractStore:
    """Return the store at an absolute URL; opened once per process and layout."""
    # A worker outlives a change of the layout, such as visits that join.
    return _open_store(url, Location(url).tag("zarr.json"))


@lru_cache(maxsize=8)
def _open_store(url: str, tag: str | None) -> TractStore:
    del tag
    return TractStore(Location(url))
