"""FITS files on the tract grid: written whole, or streamed band by band over the whole tract."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from bgmatch_dask.geometry import Box, TractGeometry

__all__ = (
    "Card",
    "Plane",
    "card_text",
    "safe_name",
    "stream_planes",
    "whole_file",
    "write_planes",
    "write_planes_like",
)

Card = tuple[str, str | float | int]

_BITPIX = {"float32": -32, "int32": 32, "uint8": 8}
_NAME_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Plane:
    """One image of a file."""

    name: str
    """Name of the extension."""
    dtype: str
    """``float32``, ``int32`` or ``uint8``."""
    fill: float | int
    """Value where there is no data."""
    unit: str
    """Unit of the pixels, empty for none."""
    cards: tuple[Card, ...] = ()
    """More cards of its header."""


Reader = Callable[[Plane, int, Box], NDArray[Any]]
"""Returns the pixels of a plane on a box inside the plane box of a patch."""


def write_planes(
    path: Path,
    geometry: TractGeometry,
    box: Box,
    planes: Sequence[tuple[Plane, NDArray[Any]]],
    cards: Sequence[Card],
) -> None:
    """Write images of one box into one file; the first is the primary HDU.

    Parameters
    ----------
    path
        File to write; it appears whole or not at all. The same arguments give the same bytes.
    geometry
        The tract.
    box
        Tract pixels that the images cover.
    planes
        Each image with its pixels.
    cards
        More cards of the primary header.
    """
    _write(path, [(p, values, _image_header(geometry, box, p)) for p, values in planes], cards)


def write_planes_like(
    path: Path,
    like: fits.Header,
    planes: Sequence[tuple[Plane, NDArray[Any]]],
    cards: Sequence[Card],
) -> None:
    """Write images as `write_planes` does, with the WCS cards of ``like``."""
    _write(path, [(p, values, _plane_header(like.cards, p)) for p, values in planes], cards)


def _write(
    path: Path, images: Sequence[tuple[Plane, NDArray[Any], fits.Header]], cards: Sequence[Card]
) -> None:
    hdus = fits.HDUList()
    for plane, values, header in images:
        kind = fits.ImageHDU if hdus else fits.PrimaryHDU
        if not hdus:
            header.update(cards)
        hdus.append(kind(np.asarray(values, plane.dtype), header))
    for hdu in hdus:
        # The usual comment holds the time of writing, and equal files must be equal bytes.
        hdu.add_checksum(when="HDU checksum")
    with whole_file(path) as partial:
        hdus.writeto(partial, overwrite=True)


def stream_planes(
    path: Path,
    geometry: TractGeometry,
    planes: Sequence[Plane],
    cards: Sequence[Card],
    read: Reader,
    patches: Sequence[int],
    *,
    empty_primary: bool,
    rows: int = 512,
) -> None:
    """Write images of the whole tract from inner boxes, some rows at a time.

    Memory is that of ``rows`` rows of the tract. Checksums are left out: they would need the
    whole image before the header.

    Parameters
    ----------
    path
        File to write; it appears whole or not at all.
    geometry
        The tract.
    planes
        The images, in order.
    cards
        More cards of the primary header.
    read
        Gives the pixels.
    patches
        Patches that hold data; the others are filled.
    empty_primary
        Whether the primary HDU has no image, as in the files of ``afw``.
    rows
        Most rows held at a time.
    """
    with whole_file(path) as partial:
        if empty_primary:
            fits.PrimaryHDU(header=fits.Header(list(cards))).writeto(partial)
        for i, plane in enumerate(planes):
            header = _image_header(geometry, geometry.patches.tract_box, plane)
            primary = i == 0 and not empty_primary
            if primary:
                header.update(cards)
            full = _stream_header(header, geometry, plane, primary=primary)
            # A path object would be taken for a file without a name, hence for one that exists.
            stream = fits.StreamingHDU(str(partial), full)
            try:
                for band in _bands(geometry, plane, read, frozenset(patches), rows):
                    stream.write(band)
            finally:
                stream.close()


def _bands(
    geometry: TractGeometry, plane: Plane, read: Reader, patches: frozenset[int], rows: int
) -> Iterator[NDArray[Any]]:
    grid, tract = geometry.patches, geometry.patches.tract_box
    for iy in range(grid.ny):
        line = grid.inner_box(iy * grid.nx)
        for y in range(line.y0, line.y1, rows):
            height = min(rows, line.y1 - y)
            band = np.full((height, tract.width), plane.fill, plane.dtype)
            for patch in range(iy * grid.nx, (iy + 1) * grid.nx):
                if patch in patches:
                    inner = grid.inner_box(patch)
                    part = Box(inner.x0, y, inner.width, height)
                    band[:, inner.x0 - tract.x0 : inner.x1 - tract.x0] = read(plane, patch, part)
            yield band


def _image_header(geometry: TractGeometry, box: Box, plane: Plane) -> fits.Header:
    cards = dict(geometry.wcs_cards)
    for axis, first in ((1, box.x0), (2, box.y0)):
        # LTV leads back to tract pixels: tract pixel = FITS pixel − 1 − LTV.
        cards[f"CRPIX{axis}"] = float(cards[f"CRPIX{axis}"]) - first
        cards[f"LTV{axis}"] = float(-first)
    return _plane_header(cards.items(), plane)


def _plane_header(wcs_cards: Iterable[Any], plane: Plane) -> fits.Header:
    header = fits.Header([("EXTNAME", plane.name), *wcs_cards, ("BUNIT", plane.unit)])
    with warnings.catch_warnings():
        # Mask planes have names that need HIERARCH cards, which astropy writes with a warning.
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        header.update(plane.cards)
    return header


def _stream_header(
    header: fits.Header, geometry: TractGeometry, plane: Plane, *, primary: bool
) -> fits.Header:
    height, width = geometry.patches.tract_box.shape
    cards: list[Card] = [("SIMPLE", True) if primary else ("XTENSION", "IMAGE")]
    cards += [("BITPIX", _BITPIX[plane.dtype]), ("NAXIS", 2)]
    cards += [("NAXIS1", width), ("NAXIS2", height)]
    cards += [("EXTEND", True)] if primary else [("PCOUNT", 0), ("GCOUNT", 1)]
    full = fits.Header(cards)
    full.extend(header)
    return full


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name to write to that becomes ``path`` at the end, or vanishes after an error."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def safe_name(label: str) -> str:
    """Return a label as a part of a file name: different for different labels, never a path."""
    name = quote(label, safe="", errors="backslashreplace")
    if len(name) <= _NAME_LENGTH:
        return name
    digest = hashlib.blake2b(label.encode("utf-8", "backslashreplace"), digest_size=8)
    return f"{name[: _NAME_LENGTH - 20]}-{digest.hexdigest()}"


def card_text(label: str) -> str:
    """Return a label that a FITS card holds: printable ASCII of at most 40 characters."""
    text = label.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(c if c.isprintable() else "?" for c in text)[:40]
