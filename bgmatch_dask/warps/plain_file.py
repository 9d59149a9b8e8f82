"""FITS files of images stored as they are, or gzipped row by row, read once from end to end.

Checksums of the HDUs, the checksum of the file and the numbers of its images are taken of each
piece while it is in the cache of the processor. All that is out of the ordinary is refused here:
such files go the way of `bgmatch_dask.warps.fits_checks`, which also says what is wrong with a bad
one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from bgmatch_dask.errors import InputError
from bgmatch_dask.numerics.word_sums import add_words, take_words
from bgmatch_dask.warps.fits_structure import BYTES_PER_PIXEL, Unit, check_structure
from bgmatch_dask.warps.fits_sums import compare_sums
from bgmatch_dask.warps.header_cards import OddCardError, PlainHeader
from bgmatch_dask.warps.places import is_remote, stat_input
from bgmatch_dask.warps.tiles import RowTiles

__all__ = ("NOT_PLAIN", "PlainFile", "PlainHdu", "plain_file")

NOT_PLAIN = (
    *(InputError, OddCardError, OSError, LookupError, TypeError, ValueError, ArithmeticError),
    zlib.error,
)
"""What is raised for a file that is not plain, or not sound."""

_PIECE = 1 << 20
_DTYPES = {-32: np.dtype(np.float32), 32: np.dtype(np.int32)}
_CHANGED = ("BSCALE", "BZERO", "BLANK", "GROUPS")
"""Cards of images whose numbers are not stored as they are."""


@dataclass(frozen=True, slots=True)
class PlainHdu:
    """One image, or the empty HDU that a file begins with."""

    name: str
    """Value of ``EXTNAME``."""
    shape: tuple[int, ...]
    """Rows and columns; empty without data."""
    header: PlainHeader
    """Its cards, as those of an image."""
    tiles: RowTiles | None = None
    """How its rows are compressed; None when they are not."""

    @property
    def is_image(self) -> bool:
        """Whether it holds an image, as everything here does."""
        return True


@dataclass(frozen=True, slots=True)
class PlainFile:
    """A file of which at least the first HDUs are plain."""

    path: str
    """Its path."""
    units: tuple[Unit, ...]
    """Where its HDUs lie."""
    hdus: tuple[PlainHdu, ...]
    """The HDUs up to the first that is not plain."""

    def read(self, names: Sequence[str]) -> tuple[list[NDArray[Any]], str]:
        """Read images, and compare all HDUs of the file with the sums that they record.

        Parameters
        ----------
        names
            Names of the images.

        Returns
        -------
        images : list of ndarray
            The first image of each name, float32 or int32.
        checksum : str
            The first 128 bits of the BLAKE3 digest of the file, in hex.

        Raises
        ------
        InputError, LookupError
            One of `NOT_PLAIN`.
        """
        wanted = [next(i for i, hdu in enumerate(self.hdus) if hdu.name == n) for n in names]
        images, checksum = self._read_all(frozenset(wanted))
        return [images[index] for index in wanted], checksum

    def _read_all(self, wanted: AbstractSet[int]) -> tuple[dict[int, NDArray[Any]], str]:
        images = {}
        with Path(self.path).open("rb", buffering=0) as stream:
            sums = _Pass(stream)
            for index, unit in enumerate(self.units):
                header = sums.take(unit.data - unit.start)
                length = unit.end - unit.data
                if index not in wanted:
                    compare_sums(index, unit, header, sums.take(length), self.path)
                    continue
                hdu = self.hdus[index]
                if hdu.tiles is None:
                    image = np.empty(hdu.shape, _DTYPES[int(hdu.header["BITPIX"])])
                    compare_sums(index, unit, header, sums.take(length, image), self.path)
                else:
                    packed = np.empty(length, np.uint8)
                    compare_sums(index, unit, header, sums.keep(packed), self.path)
                    image = hdu.tiles.decode(packed.data)
                images[index] = image
            return images, sums.digest()


class _Pass:
    """One pass over a file, piece by piece."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401
        self._stream = stream
        self._digest = blake3()
        self._piece = np.empty(_PIECE, np.uint8)
        self._view = self._piece.data

    def take(self, length: int, out: NDArray[Any] | None = None) -> int:
        """Take the next bytes; return the sum of their words, which go to ``out`` as well."""
        words = np.empty(0, np.uint32) if out is None else out.reshape(-1).view(np.uint32)
        total = at = 0
        while length:
            size = min(_PIECE, length)
            self._fill(self._view[:size])
            used = min(size, 4 * (words.size - at))
            if used:
                total = take_words(self._piece[:used], words[at : at + used // 4], total)
                at += used // 4
            if used < size:
                total = add_words(self._piece[used:size], total)
            length -= size
        return total

    def keep(self, out: NDArray[np.uint8]) -> int:
        """Take the next bytes as they are; return the sum of their words."""
        total = 0
        for at in range(0, out.size, _PIECE):
            piece = out[at : at + _PIECE]
            self._fill(piece.data)
            total = add_words(piece, total)
        return total

    def _fill(self, piece: memoryview) -> None:
        at = 0
        while at < len(piece):
            got = self._stream.readinto(piece[at:])
            if not got:
                raise ValueError("the file became shorter while it was read")
            at += got
        self._digest.update(piece)

    def digest(self) -> str:
        """Return the checksum of all bytes so far."""
        return str(self._digest.hexdigest(16))


def plain_file(path: str, max_pixels: int) -> PlainFile:
    """Look at the headers of a file on disk.

    Parameters
    ----------
    path
        A path or a URL.
    max_pixels
        Most pixels that one HDU may hold, as in `bgmatch_dask.warps.fits_checks.open_checked`.

    Raises
    ------
    InputError, OddCardError, OSError, LookupError, ValueError
        One of `NOT_PLAIN`.
    """
    size = 0 if is_remote(path) else stat_input(path).size
    if not 0 < size <= BYTES_PER_PIXEL * max_pixels:
        raise ValueError("of no size for this way")
    with Path(path).open("rb") as stream:
        units = check_structure(stream, size, path, max_pixels)
        return PlainFile(path, units, tuple(_plain_hdus(stream, units)))


def _plain_hdus(stream: Any, units: Sequence[Unit]) -> Iterator[PlainHdu]:  # noqa: ANN401
    for index, unit in enumerate(units):
        stream.seek(unit.start)
        try:
            header = PlainHeader.read(stream.read(unit.data - unit.start))
            hdu = _hdu(header, first=index == 0)
        except (OddCardError, LookupError, TypeError):
            return
        if hdu is None:
            return
        yield hdu


def _hdu(header: PlainHeader, *, first: bool) -> PlainHdu | None:
    """Return an HDU that astropy would read as it stands, None for any other."""
    tiles = None
    if first:
        plain = header["SIMPLE"] is True and header["NAXIS"] == 0 and "EXTNAME" not in header
        name = "PRIMARY"
    else:
        name = str(header["EXTNAME"])
        plain = header["GCOUNT"] == 1 and name == name.strip().upper()
        if header["XTENSION"] == "BINTABLE":
            tiles = RowTiles.of(header)
            plain = plain and header["ZIMAGE"] is True and tiles is not None
            header = header.as_image()
        else:
            plain = plain and header["XTENSION"] == "IMAGE" and header["PCOUNT"] == 0
    if not plain or any(card in header for card in _CHANGED):
        return None
    shape = tuple(int(header[f"NAXIS{axis}"]) for axis in range(int(header["NAXIS"]), 0, -1))
    return PlainHdu(name, shape, header, tiles)
