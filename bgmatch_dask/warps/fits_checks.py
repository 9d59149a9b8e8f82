"""Opening FITS files that may be broken or hostile.

Everything that can be known from the headers (shape, size, truncation) is checked before any
pixel is touched, because a forged header makes a reader allocate terabytes.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from bgmatch_dask.errors import InputError

__all__ = ("MAX_PIXELS", "open_checked")

MAX_PIXELS = 2**28
"""Pixels that one HDU may hold unless the caller says otherwise (1 GiB of float32)."""

_MAX_HEADER_BYTES = 8_000_000
_GZIP_MAGIC = b"\x1f\x8b"


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
        A local file.
    max_pixels
        Most pixels that one HDU may hold.
    checksum
        Compare pixels with ``CHECKSUM`` and ``DATASUM`` cards where there are any; this reads
        each HDU that the body touches.

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
        content = _inflated(where, max_pixels)
        size = Path(where).stat().st_size if content is None else len(content)
        with _stream(where, content) as stream:
            _check_structure(stream, size, where, max_pixels)
        # Streams are ours, so that they are closed also when astropy fails half way.
        with (
            _stream(where, content) as stream,
            fits.open(stream, memmap=False, lazy_load_hdus=True, checksum=checksum) as hdus,
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
        except InputError:
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
        except (OSError, EOFError, ValueError, TypeError, LookupError, zlib.error) as error:
            raise InputError(
                "fits-unreadable",
                f"Not a readable FITS file: {error}",
                where=where,
                fix="Fetch or make the file again.",
            ) from error


def _from_warning(warning: AstropyUserWarning, where: str) -> InputError:
    text = str(warning)
    if "truncated" in text.lower():
        return _truncated(text, where)
    code = "fits-checksum" if "sum verification failed" in text.lower() else "fits-unreadable"
    return InputError(code, text, where=where, fix="Fetch or make the file again.")


def _truncated(what: str, where: str) -> InputError:
    return InputError("fits-truncated", what, where=where, fix="Fetch or make the file again.")


def _inflated(where: str, max_pixels: int) -> bytes | None:
    """Return the content of a gzipped file, None for a plain one."""
    with Path(where).open("rb") as stream:
        magic = stream.read(2)
        if not magic:
            raise _truncated("The file is empty", where)
        if magic != _GZIP_MAGIC:
            return None
        stream.seek(0)
        limit = 16 * max_pixels
        with gzip.open(stream) as inflated:
            content = inflated.read(limit + 1)
    if len(content) > limit:
        raise _too_large(f"The file inflates to more than {limit} bytes", where)
    return content


def _stream(where: str, content: bytes | None) -> IO[bytes]:
    return Path(where).open("rb") if content is None else io.BytesIO(content)


def _check_structure(stream: IO[bytes], size: int, where: str, max_pixels: int) -> None:
    """Compare what the headers promise with the limits and with the size of the file."""
    end = 0
    with warnings.catch_warnings(), fits.open(stream, memmap=False, lazy_load_hdus=True) as hdus:
        # Forged sizes come out as "truncated" in astropy; the limit is the better answer.
        warnings.simplefilter("ignore", AstropyUserWarning)
        for index, hdu in enumerate(hdus):
            place = hdu.fileinfo()
            if place["datLoc"] - place["hdrLoc"] > _MAX_HEADER_BYTES:
                raise _too_large(f"The header of HDU {index} is too long", where)
            pixels = _pixels(hdu)
            if pixels > max_pixels:
                raise _too_large(
                    f"HDU {index} claims {pixels} pixels, the limit is {max_pixels}", where
                )
            end = max(end, place["datLoc"] + place["datSpan"])
    if size < end:
        raise _truncated(f"The file has {size} bytes, its headers promise {end}", where)
    if size > end:
        raise _truncated(f"{size - end} bytes after the last whole HDU are not an HDU", where)


def _pixels(hdu: fits.ImageHDU | fits.CompImageHDU) -> int:
    if isinstance(hdu, fits.CompImageHDU):
        return math.prod(hdu.shape)
    axes = int(hdu.header.get("NAXIS", 0))
    sizes = [int(hdu.header.get(f"NAXIS{axis + 1}", 0)) for axis in range(axes)]
    return math.prod(sizes) if sizes else 0


def _too_large(what: str, where: str) -> InputError:
    return InputError(
        "too-large", what, where=where, fix="Raise the pixel limit if the file is sound."
    )
