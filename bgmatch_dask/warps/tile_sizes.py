"""What the gzipped tiles of an image expand to, counted before astropy inflates them.

A gzip stream says nothing binding about its size: a tile of a megabyte may hold a gigabyte, and
astropy inflates it whole before it compares the size. FITS Standard 4.0, sections 7.3 and 10.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator

import numpy as np
from astropy.io import fits

from bgmatch_dask.warps.fits_structure import too_large

__all__ = ("check_tiles",)

_WIDTHS = dict(zip("LXBIJKAEDCMPQ", (1, 1, 1, 2, 4, 8, 1, 4, 8, 8, 16, 8, 16), strict=True))
_GZIP_MAGIC = b"\x1f\x8b"
_WIDEST = 8
"""Bytes of a pixel, at most."""


def check_tiles(hdu: fits.ImageHDU | fits.CompImageHDU) -> None:
    """Refuse an image of which a gzipped tile holds more than a tile's pixels.

    Parameters
    ----------
    hdu
        An open image; one that is not compressed passes.

    Raises
    ------
    InputError
        ``too-large``.
    ValueError
        When the table of tiles makes no sense.
    """
    if not isinstance(hdu, fits.CompImageHDU):
        return
    place = hdu.fileinfo()
    stream, start = place["file"], place["datLoc"]
    stream.seek(place["hdrLoc"])
    header = fits.Header.fromstring(stream.read(start - place["hdrLoc"]))
    axes = int(header["ZNAXIS"])
    tile = [int(header.get(f"ZTILE{n}", header["ZNAXIS1"] if n == 1 else 1)) for n in _upto(axes)]
    limit = _WIDEST * math.prod(tile)
    row = int(header["NAXIS1"])
    heap = start + int(header.get("THEAP", row * header["NAXIS2"]))
    stream.seek(start)
    table = np.frombuffer(stream.read(row * header["NAXIS2"]), np.uint8).reshape(-1, row)
    for column, entry in _pointers(header):
        width = entry.itemsize
        pairs = np.ascontiguousarray(table[:, column : column + 2 * width]).view(entry)
        for size, offset in pairs.astype(np.int64).tolist():
            if not 0 <= size <= int(header["PCOUNT"]):
                raise ValueError("a compressed tile lies outside its table")
            stream.seek(heap + offset)
            packed = stream.read(size)
            # One byte over is enough to know; nothing larger is ever made.
            if packed[:2] == _GZIP_MAGIC and len(_inflated(packed, limit + 1)) > limit:
                raise too_large("A compressed tile holds more than its pixels", str(hdu.name))


def _inflated(packed: bytes, limit: int) -> bytes:
    return zlib.decompressobj(31).decompress(packed, limit)


def _pointers(header: fits.Header) -> Iterator[tuple[int, np.dtype[np.signedinteger]]]:
    """Yield the place in a row of each column of descriptors, and the type of their numbers."""
    at = 0
    for number in _upto(int(header["TFIELDS"])):
        found = re.match(r"(\d*)([LXBIJKAEDCMPQ])", str(header[f"TFORM{number}"]))
        if found is None:
            raise ValueError(f"column {number} of the tiles has no format")
        count, kind = int(found.group(1) or 1), found.group(2)
        name = str(header.get(f"TTYPE{number}", ""))
        if kind in "PQ" and count == 1 and name.endswith("COMPRESSED_DATA"):
            yield at, np.dtype(">i4" if kind == "P" else ">i8")
        at += -(-count // 8) if kind == "X" else count * _WIDTHS[kind]


def _upto(count: int) -> range:
    return range(1, count + 1)
