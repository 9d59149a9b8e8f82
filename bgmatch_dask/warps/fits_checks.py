"""Opening FITS files that may be broken or hostile.

Everything that can be known from the headers (shape, size, truncation) is checked before any
pixel is touched, because a forged header makes a reader allocate terabytes.
"""

from __future__ import annotations

import gzip
import io
import os
import warnings
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import IO, Any

from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from bgmatch_dask.errors import BgmatchError, InputError
from bgmatch_dask.warps.fits_structure import (
    BYTES_PER_PIXEL,
    check_structure,
    too_large,
    truncated,
)
from bgmatch_dask.warps.fits_sums import check_sums
from bgmatch_dask.warps.places import is_remote, open_input, read_input, stat_input

__all__ = ("MAX_PIXELS", "open_checked")

MAX_PIXELS = 2**28
"""Pixels that one HDU may hold unless the caller says otherwise (1 GiB of float32)."""

_PIECE = 1 << 18
_OWN = 4 * _PIECE
"""Bytes that inflating takes beside what it keeps: the window of zlib, its buffers, one piece."""
_GZIP_MAGIC = b"\x1f\x8b"


_UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(RuntimeError, MemoryError, zlib.error, fits.VerifyError),
)
"""What astropy raises for bytes that are not what their headers say."""


@contextmanager
def open_checked(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, checksum: bool = True
) -> Iterator[fits.HDUList]:
    """Open a FITS file after checking its structure, and turn what goes wrong into `InputError`.

    Errors of astropy and zlib that the body raises while it reads pixels are translated too.
    A gzipped file is inflated in memory, up to the size that ``max_pixels`` allows.

    Parameters
    ----------
    path
        A local file or a URL. Of an object in a store only what is read is fetched, unless
        ``checksum`` is set; of a web server's file, all.
    max_pixels
        Most pixels that one HDU may hold; the file itself, and what it inflates to, may have
        16 bytes for each of them; inflating takes no more memory than that.
    checksum
        Compare all HDUs with their ``CHECKSUM`` and ``DATASUM`` cards where there are any; this
        reads the file once.

    Yields
    ------
    astropy.io.fits.HDUList
        Open for reading, without memory map.

    Raises
    ------
    InputError
        ``path-unreadable``, ``fits-unreadable``, ``fits-truncated``, ``fits-checksum`` or
        ``too-large``.
    """
    where = os.fspath(path)
    with _translated(where):
        content = _content(where, max_pixels, whole=checksum)
        size = stat_input(where).size if content is None else sum(map(len, content))
        with _stream(where, content) as stream:
            units = check_structure(stream, size, where, max_pixels)
            if checksum:
                check_sums(stream, units, where)
        # Streams are ours, so that they are closed also when astropy fails half way.
        with (
            _stream(where, content) as stream,
            fits.open(stream, memmap=False, lazy_load_hdus=True) as hdus,
        ):
            yield hdus


@contextmanager
def _translated(where: str) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", AstropyUserWarning)
        # Odd but harmless cards are common in real files; what matters is checked by us.
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        try:
            yield
        except BgmatchError:
            raise
        except AstropyUserWarning as warning:
            raise _from_warning(warning, where) from warning
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise InputError(
                "path-unreadable",
                f"The file cannot be opened: {error.strerror or error}",
                where=where,
                fix="Check the path and its permissions.",
            ) from error
        except _UNREADABLE as error:
            raise InputError(
                "fits-unreadable",
                f"Not a readable FITS file: {error}",
                where=where,
                fix="Fetch or make the file again.",
            ) from error


def _from_warning(warning: AstropyUserWarning, where: str) -> InputError:
    text = str(warning)
    if "truncated" in text.lower():
        return truncated(text, where)
    return InputError("fits-unreadable", text, where=where, fix="Fetch or make the file again.")


def _content(where: str, max_pixels: int, *, whole: bool) -> tuple[bytes, ...] | None:
    """Return the bytes of a gzipped or a fetched file, None for one that is read in place."""
    limit = BYTES_PER_PIXEL * max_pixels
    size = stat_input(where).size
    if size > limit:
        raise too_large(f"The file has {size} bytes, the limit is {limit}", where)
    fetched: tuple[bytes, ...] | None = None
    if is_remote(where) and (whole or where.startswith("http")):
        data = read_input(where, limit)
        if data is None:
            raise too_large(f"The file has more than {limit} bytes", where)
        fetched = (data,)
    with _stream(where, fetched) as stream:
        magic = stream.read(2)
        if not magic:
            raise truncated("The file is empty", where)
        if magic != _GZIP_MAGIC:
            return fetched
        stream.seek(0)
        return tuple(_inflated(stream, limit - _OWN, where))


def _inflated(stream: IO[bytes], limit: int, where: str) -> Iterator[bytes]:
    """Yield what a gzipped file holds in pieces, which are never joined: that would double them."""
    size = 0
    with gzip.open(stream) as inflated:
        while piece := inflated.read(_PIECE):
            size += len(piece)
            if size > limit:
                raise too_large(f"The file inflates to more than {limit} bytes", where)
            yield piece


class _Pieces(io.RawIOBase):
    """Pieces of bytes, read as one file."""

    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        self._pieces = pieces
        self._ends = tuple(accumulate(map(len, pieces)))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._ends[-1]}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        index = bisect_right(self._ends, self._at)
        if index == len(self._pieces):
            return 0
        piece = self._pieces[index]
        start = self._at - (self._ends[index] - len(piece))
        part = memoryview(piece)[start : start + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def _stream(where: str, content: tuple[bytes, ...] | None) -> IO[bytes]:
    return open_input(where) if content is None else io.BufferedReader(_Pieces(content))
