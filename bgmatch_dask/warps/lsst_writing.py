"""Warps written in the FITS layout that `bgmatch_dask.warps.lsst` reads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astropy.io import fits
from numpy.typing import NDArray

from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import MASK_PLANES
from bgmatch_dask.warps.lsst import DATAID
from bgmatch_dask.warps.warp import Warp

__all__ = ("write_lsst_warp",)


def write_lsst_warp(
    path: str | os.PathLike[str],
    warp: Warp,
    wcs_cards: Sequence[tuple[str, str | float | int]],
    *,
    visit: int | str | None,
    tract: int | str,
    patch: int | str,
    band: str,
    bunit: str = "nJy",
    cards: Sequence[tuple[str, str | float | int]] = (),
    compressed: bool = False,
) -> None:
    """Write a warp without loss; the same arguments give the same bytes.

    Parameters
    ----------
    path
        File to write; it appears whole or not at all.
    warp
        Planes in ``bunit`` and in the mask planes of the store; its ratio becomes the HDU RATIO.
    wcs_cards
        Celestial WCS in tract pixels, as in `LsstHeader`; a FITS card holds 20 characters.
    visit, tract, patch, band
        Labels of the unit, written as ``LSST BUTLER DATAID`` cards; a coadd has no visit.
    bunit
        Unit of the image.
    cards
        More cards for the primary header.
    compressed
        Compress the planes row by row (FITS tile compression, ``GZIP_2``), as the Butler does.
    """
    ids = {"VISIT": visit, "TRACT": tract, "PATCH": patch, "BAND": band}
    hdus = fits.HDUList([_primary(ids)])
    hdus[0].header.update(cards)
    image = fits.Header(_local_wcs(wcs_cards, warp.box))
    image["BUNIT"] = bunit
    variance = image.copy()
    variance["BUNIT"] = f"{bunit}**2"
    mask = fits.Header(_local_wcs(wcs_cards, warp.box))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        mask.update({f"MP_{name}": bit for name, bit in MASK_PLANES.items()})
    for name, values, header in (
        ("IMAGE", warp.image, image),
        ("MASK", warp.mask, mask),
        ("VARIANCE", warp.variance, variance),
    ):
        hdus.append(_plane(name, values, header, compressed=compressed))
    if warp.ratio is not None:
        ratio = fits.Header(_local_wcs(wcs_cards, warp.box))
        hdus.append(_plane("RATIO", warp.ratio, ratio, compressed=compressed))
    _write_whole(hdus, Path(path))


def _plane(
    name: str, values: NDArray[Any], header: fits.Header, *, compressed: bool
) -> fits.ImageHDU | fits.CompImageHDU:
    if compressed:
        # Each gzipped row ends with a CRC of its own, so no checksum cards are needed.
        return fits.CompImageHDU(
            values,
            header,
            name=name,
            compression_type="GZIP_2",
            tile_shape=(1, values.shape[1]),
            quantize_level=0,
        )
    hdu = fits.ImageHDU(values, header, name=name)
    # The usual comment holds the time of writing, and equal warps must be equal bytes.
    hdu.add_checksum(when="HDU checksum")
    return hdu


def _primary(ids: Mapping[str, int | str | None]) -> fits.PrimaryHDU:
    hdu = fits.PrimaryHDU()
    visit = ids["VISIT"]
    hdu.header["FILTER"] = (str(ids["BAND"]), "band of the warp")
    if isinstance(visit, int) or (visit is not None and visit.isdecimal()):
        hdu.header["EXPID"] = (int(visit), "visit of the warp")
    for name, value in ids.items():
        if value is not None:
            hdu.header[f"HIERARCH {DATAID} {name}"] = value
    return hdu


def _local_wcs(
    wcs_cards: Sequence[tuple[str, str | float | int]], box: Box
) -> list[tuple[str, str | float | int]]:
    cards = dict(wcs_cards)
    cards["CRPIX1"] = float(cards["CRPIX1"]) - box.x0
    cards["CRPIX2"] = float(cards["CRPIX2"]) - box.y0
    for axis, first in ((1, box.x0), (2, box.y0)):
        cards[f"CTYPE{axis}A"] = "LINEAR"
        cards[f"CUNIT{axis}A"] = "PIXEL"
        cards[f"CRPIX{axis}A"] = 1.0
        cards[f"CRVAL{axis}A"] = float(first)
        cards[f"LTV{axis}"] = float(-first)
    return list(cards.items())


def _write_whole(hdus: fits.HDUList, path: Path) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        hdus.writeto(partial, overwrite=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
