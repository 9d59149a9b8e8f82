"""Gzipped FITS tiles, read without astropy's loop over them.

Warps of the Butler are compressed row by row without loss. Where a plane is of that kind, its
rows are inflated here, with libdeflate when it is installed; any other plane is left to astropy.
The convention is FITS Standard 4.0, section 10; ``GZIP_2`` is "shuffled" (section 10.4.2).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import IO, Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from bgmatch_dask.numerics.byte_planes import join_bytes
from bgmatch_dask.warps.header_cards import PlainHeader
from bgmatch_dask.warps.tile_sizes import check_tiles

deflate: Any = None
with suppress(ImportError):  # zlib gives the same bytes more slowly.
    deflate = import_module("deflate")

__all__ = ("RowTiles", "read_plane")

Window = tuple[slice, slice]

_DTYPES = {-32: np.dtype(np.float32), 32: np.dtype(np.int32)}
_COLUMN = {"TTYPE1": "COMPRESSED_DATA", "TFIELDS": 1}
_PLAIN = ("BSCALE", "BZERO", "ZSCALE", "ZZERO", "ZBLANK", "ZNULLS", "THEAP")
"""Cards of planes whose numbers are not stored as they are."""
_TOGETHER = 64
"""Rows that are put together at a time."""


def read_plane(hdu: fits.ImageHDU | fits.CompImageHDU, window: Window) -> NDArray[Any]:
    """Read a part of an image plane.

    Parameters
    ----------
    hdu
        An open plane of two axes.
    window
        Rows and columns.

    Returns
    -------
    ndarray
        Native byte order for planes that are decoded here; the same numbers as astropy's.

    Raises
    ------
    ValueError
        When a tile is broken; `zlib.error` and `OSError` where the reader below says so.
    """
    if isinstance(hdu, fits.CompImageHDU):
        place = hdu.fileinfo()
        stream, start = place["file"], place["datLoc"]
        stream.seek(place["hdrLoc"])
        tiles = RowTiles.of(fits.Header.fromstring(stream.read(start - place["hdrLoc"])))
        if tiles is not None:
            return tiles.read(stream, start, window)
    check_tiles(hdu)
    return np.asarray(hdu.section[window])


@dataclass(frozen=True, slots=True)
class RowTiles:
    """A plane stored as one gzip stream per row: a table of places, and a heap of streams."""

    length: int
    """Bytes of table and heap."""
    height: int
    """Rows."""
    width: int
    """Columns."""
    dtype: np.dtype[Any]
    """Type of the pixels, in native byte order."""
    wide: bool
    """Whether the descriptors are of 64 bits."""
    shuffled: bool
    """Whether bytes of the same place come together."""

    @classmethod
    def of(cls, header: fits.Header | PlainHeader) -> RowTiles | None:
        """Return what the header of the table says; None for a plane stored in another way."""
        get = header.get
        form = str(get("TFORM1", "")).strip().lstrip("1")
        known = (
            all(get(key) == value for key, value in _COLUMN.items())
            and form[:2] in {"PB", "QB"}
            and str(get("ZCMPTYPE", "")).strip() in {"GZIP_1", "GZIP_2"}
            and str(get("ZQUANTIZ", "NONE")).strip() in {"NONE", "NO_DITHER"}
            and get("ZNAXIS") == 2
            and (get("ZTILE1"), get("ZTILE2", 1)) == (get("ZNAXIS1"), 1)
            and get("ZBITPIX") in _DTYPES
            and get("NAXIS2") == get("ZNAXIS2")
            and not any(key in header for key in _PLAIN)
        )
        if not known:
            return None
        return cls(
            length=header["NAXIS1"] * header["NAXIS2"] + header["PCOUNT"],
            height=header["ZNAXIS2"],
            width=header["ZNAXIS1"],
            dtype=_DTYPES[header["ZBITPIX"]],
            wide=form.startswith("Q"),
            shuffled=str(header["ZCMPTYPE"]).strip() == "GZIP_2",
        )

    def read(self, stream: IO[bytes], start: int, window: Window) -> NDArray[Any]:
        """Read a part of the plane from a file.

        Parameters
        ----------
        stream
            The file.
        start
            Where the table begins.
        window
            Rows and columns.
        """
        rows, columns = (
            range(*part.indices(n))
            for part, n in zip(window, (self.height, self.width), strict=True)
        )
        stream.seek(start)
        wanted = self._places(stream.read(self._table))[rows.start : rows.stop]
        first, last = self._extent(wanted)
        stream.seek(start + self._table + first)
        packed = memoryview(stream.read(last - first))
        return self._rows(packed, wanted - np.array([0, first]))[:, columns.start : columns.stop]

    def decode(self, data: memoryview) -> NDArray[Any]:
        """Return the plane whose table and heap are in memory."""
        places = self._places(data[: self._table])
        self._extent(places)
        return self._rows(data[self._table : self.length], places)

    @property
    def _table(self) -> int:
        """Bytes of the table."""
        return self.height * (16 if self.wide else 8)

    def _places(self, table: bytes | memoryview) -> NDArray[np.int64]:
        """Return size and offset of every row."""
        entry = ">i8" if self.wide else ">i4"
        return np.frombuffer(table, entry).reshape(self.height, 2).astype(np.int64)

    def _extent(self, places: NDArray[np.int64]) -> tuple[int, int]:
        """Return the part of the heap that holds some rows, after a look at what they claim."""
        size, offset = places[:, 0], places[:, 1]
        heap = self.length - self._table
        if places.size and (size.min() <= 0 or offset.min() < 0 or (size + offset).max() > heap):
            raise ValueError("a compressed row lies outside its table")
        return (int(offset.min()), int((size + offset).max())) if places.size else (0, 0)

    def _rows(self, packed: memoryview, places: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows from their streams."""
        out = np.empty((len(places), self.width), np.uint32)
        pairs = places.tolist()
        for top in range(0, len(pairs), _TOGETHER):
            part = out[top : top + _TOGETHER]
            pieces = (packed[start : start + n] for n, start in pairs[top : top + _TOGETHER])
            data = b"".join([_row(row, self.width * 4) for row in pieces])
            if self.shuffled:
                join_bytes(np.frombuffer(data, np.uint8).reshape(len(part), 4, -1), part)
            else:
                part[:] = np.frombuffer(data, ">u4").reshape(part.shape)
        return out.view(self.dtype)


def _row(packed: memoryview, size: int) -> bytearray:
    data = _inflate(packed, size)
    if len(data) != size:
        raise ValueError(f"a compressed row holds {len(data)} bytes, not {size}")
    return data


def _with_zlib(packed: memoryview, size: int) -> bytearray:
    """Inflate one gzip stream; never more than a byte over the size, whatever it claims."""
    stream = zlib.decompressobj(31)
    data = bytearray(stream.decompress(packed, size + 1))
    if len(data) == size and not stream.eof:
        # The checksum at the end of the stream is looked at when its end is read.
        data += stream.decompress(stream.unconsumed_tail, 1)
    if len(data) == size and not stream.eof:
        raise ValueError("a compressed row ends too early")
    return data


def _with_libdeflate(packed: memoryview, size: int) -> bytearray:
    # The last four bytes are the size; it is looked at before anything is allocated.
    if len(packed) < 18 or int.from_bytes(packed[-4:], "little") != size:
        raise ValueError("a compressed row has another size than its header says")
    try:
        data: bytearray = deflate.gzip_decompress(packed)
    except deflate.DeflateError as error:
        raise ValueError(f"a compressed row is broken: {error}") from error
    return data


_inflate: Callable[[memoryview, int], bytearray] = (
    _with_zlib if deflate is None else _with_libdeflate
)
