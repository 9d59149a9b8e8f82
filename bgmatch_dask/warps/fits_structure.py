"""The skeleton of a FITS file, read from raw header blocks with bounded memory.

A forged header makes a reader allocate terabytes, and a header of a million cards keeps it busy
for minutes. What the headers promise is therefore compared with the limits and with the size of
the file before astropy sees any of it. FITS standard 4.0, sections 3 and 4; tile-compressed
images: section 10.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO

from bgmatch_dask.errors import InputError

__all__ = ("BYTES_PER_PIXEL", "Unit", "check_structure", "too_large", "truncated")

BYTES_PER_PIXEL = 16
"""Bytes that a file, or what it expands to, may have per pixel that is allowed."""

_BLOCK = 2880
_CARD = 80
_MAX_CARDS = 100_000
_MAX_HDUS = 4096
_MAX_AXES = 8
_MAX_EXPANSION = 1100
"""No coding of FITS expands by more: GZIP reaches 1032."""
_HARMLESS = 1 << 26
"""An expansion below this many bytes needs no explanation."""

_CODINGS = frozenset({"GZIP_1", "GZIP_2", "RICE_1", "RICE_ONE", "NOCOMPRESS"})
"""Codings of tiles whose decoders take no size from the stream."""

_NUMBERS = frozenset({"BITPIX", "NAXIS", "PCOUNT", "GCOUNT", "ZBITPIX", "ZNAXIS"})
_BITPIX = frozenset({8, 16, 32, 64, -32, -64})
_PREFIXES = ("NAXIS", "ZNAXIS", "ZTILE")
_SUMS = frozenset({"CHECKSUM", "DATASUM"})


@dataclass(frozen=True, slots=True)
class Unit:
    """Where an HDU lies in its file, and the sums that its header records."""

    start: int
    """Offset of the header [byte]."""
    data: int
    """Offset of the data."""
    end: int
    """Offset of what follows."""
    checksum: str
    """Value of ``CHECKSUM``; empty when there is none."""
    datasum: str
    """Value of ``DATASUM``; empty when there is none."""


@dataclass(frozen=True, slots=True)
class _Cards:
    """What a header says of its size, and its sums."""

    numbers: dict[str, int] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)


def check_structure(stream: IO[bytes], size: int, where: str, max_pixels: int) -> tuple[Unit, ...]:
    """Compare what the headers promise with the limits and with the size of the file.

    Parameters
    ----------
    stream
        The file, at its beginning.
    size
        Its bytes.
    where
        Its name, for errors.
    max_pixels
        Most pixels that one HDU may hold.

    Returns
    -------
    tuple of Unit
        The HDUs.

    Raises
    ------
    InputError
        ``fits-unreadable``, ``fits-truncated`` or ``too-large``.
    """
    end = expanded = 0
    units: list[Unit] = []
    while end < size:
        index = len(units)
        if index >= _MAX_HDUS:
            raise too_large(f"The file has more than {_MAX_HDUS} HDUs", where)
        stream.seek(end)
        cards, length = _read_header(stream, index, where)
        numbers, data = cards.numbers, end + length
        pixels = _pixels(numbers, index, where)
        if pixels > max_pixels:
            raise too_large(f"HDU {index} claims {pixels} pixels, the limit is {max_pixels}", where)
        start, end = end, data + _data_bytes(numbers)
        units.append(Unit(start, data, end, *(cards.sums.get(k, "") for k in sorted(_SUMS))))
        expanded += pixels * abs(numbers.get("ZBITPIX", numbers.get("BITPIX", 8))) // 8
    if size < end:
        raise truncated(f"The file has {size} bytes, its headers promise {end}", where)
    if expanded > max(_HARMLESS, size * _MAX_EXPANSION):
        raise too_large(
            f"A file of {size} bytes claims to expand to {expanded}, which no coding does", where
        )
    return tuple(units)


def _read_header(stream: IO[bytes], index: int, where: str) -> tuple[_Cards, int]:
    """Return the cards of a header that count, and the bytes of the header."""
    cards = _Cards()
    length = 0
    while True:
        block = stream.read(_BLOCK)
        if index == 0 and length == 0 and not block.startswith(b"SIMPLE  ="):
            raise _unreadable("The file does not begin as FITS does", where)
        if index and length == 0 and not block.startswith(b"XTENSION"):
            raise truncated(f"What follows HDU {index - 1} is not an HDU", where)
        if len(block) < _BLOCK:
            raise truncated(f"The header of HDU {index} ends too early", where)
        length += _BLOCK
        if _take_cards(block, cards, where):
            return cards, length
        if length >= _MAX_CARDS * _CARD:
            raise too_large(f"The header of HDU {index} has more than {_MAX_CARDS} cards", where)


def _take_cards(block: bytes, cards: _Cards, where: str) -> bool:
    """Note the cards of one block; return whether the header ends in it."""
    for start in range(0, _BLOCK, _CARD):
        key = block[start : start + 8].rstrip().decode("latin-1")
        if key == "END":
            return True
        if key == "ZCMPTYPE":
            coding = _text(block, start)
            if coding not in _CODINGS:
                raise InputError(
                    "compression-unsupported",
                    f"The image is compressed as {coding!r}",
                    where=where,
                    fix=f"Compress it as one of {', '.join(sorted(_CODINGS))}.",
                )
        if key in _NUMBERS or (key.startswith(_PREFIXES) and key[-1:].isdecimal()):
            text = block[start + 10 : start + _CARD].split(b"/")[0].strip()
            try:
                # The first one counts for astropy too; a second one cannot lie about the size.
                cards.numbers.setdefault(key, int(text))
            except ValueError:
                raise _unreadable(f"The card {key} holds no whole number", where) from None
        if key in _SUMS:
            cards.sums.setdefault(key, _text(block, start))
    return False


def _text(block: bytes, start: int) -> str:
    """Return the text of a card of a kind whose texts hold no slash and no quote."""
    return block[start + 10 : start + _CARD].split(b"/")[0].strip(b" '").decode("latin-1")


def _pixels(numbers: Mapping[str, int], index: int, where: str) -> int:
    """Return the pixels of an image; of a compressed one, those it expands to."""
    z = "Z" if "ZNAXIS" in numbers else ""
    axes = numbers.get(f"{z}NAXIS", 0)
    lengths = [numbers.get(f"{z}NAXIS{axis + 1}", 0) for axis in range(min(axes, _MAX_AXES + 1))]
    if not 0 <= axes <= _MAX_AXES or min(lengths, default=0) < 0:
        raise _unreadable(f"HDU {index} has impossible axes", where)
    if not {numbers.get("BITPIX", 8), numbers.get("ZBITPIX", 8)} <= _BITPIX:
        raise _unreadable(f"HDU {index} has pixels of an impossible size", where)
    if min(numbers.get("PCOUNT", 0), numbers.get("GCOUNT", 1)) < 0:
        raise _unreadable(f"HDU {index} has an impossible size", where)
    tiles = [value for key, value in numbers.items() if key.startswith("ZTILE")]
    if min(tiles, default=1) < 1:
        raise _unreadable(f"HDU {index} has impossible tiles", where)
    return max(math.prod(lengths) if lengths else 0, math.prod(tiles) if z else 0)


def _data_bytes(numbers: Mapping[str, int]) -> int:
    axes = numbers.get("NAXIS", 0)
    if not axes:
        return 0
    elements = math.prod(numbers.get(f"NAXIS{axis + 1}", 0) for axis in range(axes))
    count = numbers.get("GCOUNT", 1) * (numbers.get("PCOUNT", 0) + elements)
    raw = abs(numbers.get("BITPIX", 8)) // 8 * count
    return -(-raw // _BLOCK) * _BLOCK


def too_large(what: str, where: str) -> InputError:
    """Return the error of a file that is beyond a limit."""
    return InputError(
        "too-large", what, where=where, fix="Raise inputs.max_megapixels if the file is sound."
    )


def truncated(what: str, where: str) -> InputError:
    """Return the error of a file that ends too early, or goes on too long."""
    return InputError("fits-truncated", what, where=where, fix="Fetch or make the file again.")


def _unreadable(what: str, where: str) -> InputError:
    return InputError("fits-unreadable", what, where=where, fix="Fetch or make the file again.")
