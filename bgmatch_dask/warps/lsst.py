"""Warps in the FITS layout that LSST's ``afw`` gives an ``ExposureF``.

HDU 0 has no data; ``IMAGE``, ``MASK`` and ``VARIANCE`` follow. The place of the first pixel in
the tract (XY0) is in the WCS "A" (``afw/src/geom/wcsUtils.cc``); the celestial WCS is written
for local pixels. Mask planes are numbered by ``MP_<NAME>`` cards. Labels of the unit are the
``LSST BUTLER DATAID`` cards that the Butler's formatter adds to the primary header.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from numpy.typing import NDArray

from bgmatch_dask.errors import InputError
from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import NO_DATA, byte_tables
from bgmatch_dask.numerics.pixel_planes import clean_planes
from bgmatch_dask.warps.fits_checks import MAX_PIXELS, open_checked
from bgmatch_dask.warps.header_cards import PlainHeader
from bgmatch_dask.warps.plain_file import NOT_PLAIN, PlainHdu, plain_file
from bgmatch_dask.warps.tiles import read_plane
from bgmatch_dask.warps.visit_facts import Facts, facts_of
from bgmatch_dask.warps.warp import Warp

__all__ = ("DATAID", "LsstHeader", "read_lsst_header", "read_lsst_warp")

Cards = tuple[tuple[str, str | float | int], ...]
Hdu: TypeAlias = fits.ImageHDU | PlainHdu
Hdus: TypeAlias = fits.HDUList | Sequence[PlainHdu]
HduHeader: TypeAlias = fits.Header | PlainHeader

DATAID = "LSST BUTLER DATAID"
"""Begin of the cards that label a unit."""
_WCS_CARD = re.compile(
    r"(WCSAXES|RADESYS|EQUINOX|LONPOLE|LATPOLE|(CTYPE|CRVAL|CRPIX|CUNIT|CDELT|CROTA)[12]"
    r"|(CD|PC)[12]_[12]|PV[12]_\d+|(A|B|AP|BP)_(ORDER|\d_\d))"
)
_TEXT = ("CTYPE", "CUNIT", "RADESYS")
_FARTHEST = 2**31
_PLANE_DTYPES: Mapping[str, tuple[int, ...]] = {
    "IMAGE": (-32, -64),
    "VARIANCE": (-32, -64),
    "MASK": (8, 16, 32),
}


@dataclass(frozen=True, slots=True)
class LsstHeader:
    """What the headers of one warp file say."""

    path: str
    """The file."""
    box: Box
    """Tract pixels that the file covers."""
    wcs_cards: Cards
    """Celestial WCS in tract pixels: FITS pixel 1 is tract pixel 0."""
    band: str | None
    """Band or filter label."""
    visit: str | None
    """Visit label; None when the file does not say."""
    tract: str | None
    """Tract label; None when the file does not say."""
    patch: str | None
    """Patch label; None when the file does not say."""
    bunit: str | None
    """Unit of the image, ``nJy`` for calibrated warps."""
    planes: tuple[tuple[str, int], ...]
    """The file's own mask planes: name and bit number."""
    facts: Facts = ()
    """What the VisitInfo and the filter label say of the visit."""


def read_lsst_header(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> LsstHeader:
    """Read and check the headers of a warp; no pixel is read.

    Parameters
    ----------
    path
        A local FITS file.
    max_pixels
        Most pixels that one plane may hold.

    Returns
    -------
    LsstHeader
        Place, WCS, labels, unit and mask planes.

    Raises
    ------
    InputError
        ``path-unreadable``, ``fits-unreadable``, ``fits-truncated``, ``too-large``,
        ``plane-missing``, ``plane-shape``, ``plane-dtype``, ``xy0-missing``, ``xy0-mismatch``,
        ``wcs-missing`` or ``mask-plane-missing``.
    """
    where = os.fspath(path)
    with suppress(*NOT_PLAIN):
        return _header(plain_file(where, max_pixels).hdus, where)
    with open_checked(path, max_pixels=max_pixels, checksum=False) as hdus:
        return _header(hdus, where)


def read_lsst_warp(
    path: str | os.PathLike[str],
    box: Box | None = None,
    *,
    calibration_scale: float | None = None,
    max_pixels: int = MAX_PIXELS,
    ratio: str | None = None,
) -> Warp:
    """Read a warp, or the part of it that lies on ``box``.

    A pixel without a finite image, a positive finite variance, or with ``NO_DATA``, has no data
    in any plane of the result.

    Parameters
    ----------
    path
        A local FITS file.
    box
        Tract pixels wanted; the warp covers the part of it that the file holds.
    calibration_scale
        nJy per unit of the image; None requires ``BUNIT`` to be ``nJy``.
    max_pixels
        Most pixels that one plane may hold.
    ratio
        Name of the HDU that holds the ratio of background to photometric calibration; a pixel
        where it is not positive and finite has no data. None: there is none.

    Returns
    -------
    Warp
        Image and variance in nJy and nJy², mask in the planes of the store.

    Raises
    ------
    InputError
        As `read_lsst_header`, and ``fits-checksum``, ``unit-unknown``, or ``no-data`` when no
        pixel is usable.
    """
    where = os.fspath(path)
    if ratio is None:
        with suppress(*NOT_PLAIN):
            return _plain_warp(where, box, calibration_scale, max_pixels)
    with open_checked(path, max_pixels=max_pixels) as hdus:
        header = _header(hdus, where)
        scale = _scale(header, calibration_scale)
        part = header.box if box is None else header.box.intersect(box)
        if part.empty:
            raise InputError("no-data", f"The file covers no pixel of {box}", where=where)
        window = part.slices_in(header.box)
        image, variance, mask = (
            read_plane(hdus[name], window) for name in ("IMAGE", "VARIANCE", "MASK")
        )
        plane = None if ratio is None else _ratio(hdus, ratio, window, where)
    values = _scaled(image, scale), _scaled(variance, scale**2)
    return _as_warp(part, *values, mask, header, plane)


def _plain_warp(
    where: str, box: Box | None, calibration_scale: float | None, max_pixels: int
) -> Warp:
    """Read a whole warp that is stored as it is; one of `NOT_PLAIN` for any other."""
    file = plain_file(where, max_pixels)
    header = _header(file.hdus, where)
    scale = _scale(header, calibration_scale)
    if box is not None and header.box.intersect(box) != header.box:
        raise ValueError("only a part is wanted")
    (image, variance, mask), checksum = file.read(("IMAGE", "VARIANCE", "MASK"))
    values = _scaled(image, scale), _scaled(variance, scale**2)
    return replace(_as_warp(header.box, *values, mask, header), checksum=checksum)


def _ratio(
    hdus: fits.HDUList, name: str, window: tuple[slice, slice], where: str
) -> NDArray[np.float32]:
    if name not in {hdu.name for hdu in hdus}:
        raise InputError(
            "plane-missing",
            f"There is no {name} HDU",
            where=where,
            fix="Name the HDU of the ratio as inputs.photometric_ratio, or leave it empty.",
        )
    hdu, image = hdus[name], hdus["IMAGE"]
    if not hdu.is_image or hdu.shape != image.shape or hdu.header["BITPIX"] not in {-32, -64}:
        raise InputError(
            "plane-shape", f"{name} does not hold real numbers of the image's shape", where=where
        )
    return _scaled(read_plane(hdu, window), np.float32(1))


def _scaled(values: NDArray[Any], scale: np.float32) -> NDArray[np.float32]:
    """Return native float32 values times a scale; the same array when nothing changes."""
    plain = values if scale == 1 else values * scale
    if plain.dtype == np.float32 and plain.flags.c_contiguous and plain.flags.writeable:
        return plain
    return plain.astype(np.float32, order="C")


def _as_warp(
    box: Box,
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.integer],
    header: LsstHeader,
    ratio: NDArray[np.float32] | None = None,
) -> Warp:
    """Make the warp of planes that are the caller's own; they are changed in place."""
    if ratio is not None:
        image[~((ratio > 0) & np.isfinite(ratio))] = np.nan
    tables = _tables(header.planes)
    bits, n_good = clean_planes(image, variance, mask, tables, NO_DATA, in_place=True)
    if not n_good:
        raise InputError(
            "no-data",
            "No pixel has a finite value, a positive variance and data",
            where=header.path,
            fix="Leave the file out.",
        )
    if ratio is not None:
        ratio[np.isnan(image)] = np.nan
    return Warp(box, image, variance, bits, ratio)


@lru_cache(maxsize=64)
def _tables(planes: tuple[tuple[str, int], ...]) -> NDArray[np.int32]:
    """Return the tables of the mask bits of a file; all files of a survey have the same."""
    return byte_tables(dict(planes))


def _scale(header: LsstHeader, calibration_scale: float | None) -> np.float32:
    if calibration_scale is not None:
        return np.float32(calibration_scale)
    if header.bunit != "nJy":
        raise InputError(
            "unit-unknown",
            f"The image is in {header.bunit or 'an unknown unit'}, not nJy",
            where=header.path,
            fix="Give calibration_scale, the nJy per unit of the image.",
        )
    return np.float32(1)


def _header(hdus: Hdus, where: str) -> LsstHeader:
    found = _find_planes(hdus, where)
    for hdu in found.values():
        _check_plane(hdu, found["IMAGE"], where)
    primary, image = hdus[0].header, found["IMAGE"].header
    x0, y0 = _xy0(image, where)
    height, width = found["IMAGE"].shape
    return LsstHeader(
        path=where,
        box=Box(x0, y0, width, height),
        wcs_cards=_tract_wcs(image, x0, y0, where),
        band=_label(primary, f"{DATAID} BAND", "FILTER"),
        visit=_label(primary, f"{DATAID} VISIT", "EXPID"),
        tract=_label(primary, f"{DATAID} TRACT"),
        patch=_label(primary, f"{DATAID} PATCH"),
        bunit=_label(image, "BUNIT"),
        planes=_planes(found["MASK"].header, where),
        facts=facts_of(primary),
    )


def _find_planes(hdus: Hdus, where: str) -> dict[str, Hdu]:
    """Return the first HDU of each plane; HDUs behind the last of them are not looked at."""
    found: dict[str, Hdu] = {}
    for hdu in hdus:
        name = hdu.name
        if name in _PLANE_DTYPES:
            found.setdefault(name, hdu)
        if len(found) == len(_PLANE_DTYPES):
            return found
    missing = next(name for name in ("IMAGE", "MASK", "VARIANCE") if name not in found)
    raise InputError("plane-missing", f"There is no {missing} HDU", where=where)


def _check_plane(hdu: Hdu, image: Hdu, where: str) -> None:
    if not hdu.is_image or len(hdu.shape) != 2 or 0 in hdu.shape or hdu.shape != image.shape:
        raise InputError(
            "plane-shape",
            f"{hdu.name} has the shape {hdu.shape}, all planes need the same two axes",
            where=where,
        )
    if hdu.header["BITPIX"] not in _PLANE_DTYPES[hdu.name]:
        raise InputError(
            "plane-dtype",
            f"{hdu.name} has BITPIX {hdu.header['BITPIX']}, "
            f"it should be one of {_PLANE_DTYPES[hdu.name]}",
            where=where,
        )


def _xy0(header: HduHeader, where: str) -> tuple[int, int]:
    """Return the tract pixel of the first pixel, from WCS "A", checked with LTV."""
    origin = []
    for axis in (1, 2):
        value = header.get(f"CRVAL{axis}A")
        if not isinstance(value, int | float):
            raise InputError(
                "xy0-missing",
                f"There is no CRVAL{axis}A card, so the place in the tract is unknown",
                where=where,
                fix="Write warps with afw, or describe them with a generic profile.",
            )
        first = value + 1 - header.get(f"CRPIX{axis}A", 1)
        shift = header.get(f"LTV{axis}", -first)
        if first != int(first) or first != -shift or abs(first) > _FARTHEST:
            raise InputError(
                "xy0-mismatch",
                f"XY0 on axis {axis} is {first} in WCS A and {-shift} in LTV{axis}",
                where=where,
                fix="Make the warp again; its place in the tract is ambiguous.",
            )
        origin.append(int(first))
    return origin[0], origin[1]


def _tract_wcs(header: HduHeader, x0: int, y0: int, where: str) -> Cards:
    # Only the values that are wanted are parsed: with 20,000 files this is what planning takes.
    ours = {card.keyword: card for card in header.cards if _WCS_CARD.fullmatch(card.keyword)}
    cards = {key: card.value for key, card in ours.items()}
    if any(isinstance(value, str) != key.startswith(_TEXT) for key, value in cards.items()):
        raise InputError("wcs-unusable", "A card of the WCS holds no number", where=where)
    if not (cards and _is_celestial("".join(card.image for card in ours.values()))):
        raise InputError("wcs-missing", "There is no celestial WCS", where=where)
    cards["CRPIX1"] = float(cards.get("CRPIX1", 0.0)) + x0
    cards["CRPIX2"] = float(cards.get("CRPIX2", 0.0)) + y0
    return tuple(cards.items())


@lru_cache(maxsize=1024)
def _is_celestial(cards: str) -> bool:
    """Whether cards make a celestial WCS; the visits of a patch have the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        return bool(WCS(fits.Header.fromstring(cards)).has_celestial)


def _planes(header: HduHeader, where: str) -> tuple[tuple[str, int], ...]:
    planes = tuple(
        (card.keyword[3:], card.value)
        for card in header.cards
        if card.keyword.startswith("MP_") and isinstance(card.value, int) and 0 <= card.value < 32
    )
    if "NO_DATA" not in dict(planes):
        raise InputError(
            "mask-plane-missing",
            "There is no MP_NO_DATA card, so pixels without data are unknown",
            where=where,
        )
    return planes


def _label(header: HduHeader, *keys: str) -> str | None:
    for key in keys:
        value = str(header.get(key, "")).strip()
        if value:
            return value
    return None
