"""The checksums of FITS files, in one pass over their bytes.

FITS Standard 4.0, section 4.4.2.7 and appendix J: the words of a data unit add up to what
``DATASUM`` says, and those of a whole HDU that has a ``CHECKSUM`` to all ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

import numpy as np

from bgmatch_dask.errors import InputError
from bgmatch_dask.numerics.word_sums import add_words
from bgmatch_dask.warps.fits_structure import Unit, truncated

__all__ = ("check_sums", "compare_sums")

_PIECE = 1 << 18
_ALL_ONES = 0xFFFFFFFF


def check_sums(stream: IO[bytes], units: Iterable[Unit], where: str) -> None:
    """Compare the HDUs that have ``CHECKSUM`` or ``DATASUM`` cards with them.

    Parameters
    ----------
    stream
        The file.
    units
        Its HDUs.
    where
        Its name, for errors.

    Raises
    ------
    InputError
        ``fits-checksum`` or ``fits-truncated``.
    """
    for index, unit in enumerate(units):
        if not (unit.checksum or unit.datasum):
            continue
        header = _sum(stream, unit.start, unit.data, where) if unit.checksum else 0
        data = _sum(stream, unit.data, unit.end, where)
        compare_sums(index, unit, header, data, where)


def compare_sums(index: int, unit: Unit, header: int, data: int, where: str) -> None:
    """Compare the sums of the words of an HDU with those that it records, where it does.

    Raises
    ------
    InputError
        ``fits-checksum``.
    """
    if unit.datasum and unit.datasum != str(data):
        raise _differs(f"DATASUM of HDU {index} is {unit.datasum}, its data add to {data}", where)
    if unit.checksum and _folded(header + data) not in {0, _ALL_ONES}:
        raise _differs(f"The bytes of HDU {index} do not fit its CHECKSUM", where)


def _sum(stream: IO[bytes], start: int, end: int, where: str) -> int:
    total = 0
    piece = np.empty(_PIECE, np.uint8)
    view = piece.data
    stream.seek(start)
    while start < end:
        length = min(_PIECE, end - start)
        if stream.readinto(view[:length]) != length:  # type: ignore[attr-defined]
            raise truncated("The file became shorter while it was read", where)
        total = add_words(piece[:length], total)
        start += length
    return total


def _folded(total: int) -> int:
    return (total & _ALL_ONES) + (total >> 32)


def _differs(what: str, where: str) -> InputError:
    return InputError("fits-checksum", what, where=where, fix="Fetch or make the file again.")
