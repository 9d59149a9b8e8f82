"""Files on the grid of one file: no tract, no store.

Warps of LSST must lie on that grid already; other images are resampled onto it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from bgmatch_dask.errors import InputError
from bgmatch_dask.geometry import Box, PatchGrid, TractGeometry
from bgmatch_dask.warps.catalogue import InputFile, celestial_wcs, image_hdu, scan_inputs
from bgmatch_dask.warps.fits_checks import open_checked
from bgmatch_dask.warps.lsst import LsstHeader, read_lsst_header, read_lsst_warp
from bgmatch_dask.warps.lsst_writing import write_lsst_warp
from bgmatch_dask.warps.profile import Profile
from bgmatch_dask.warps.resample import resample_unit
from bgmatch_dask.warps.warp import Warp

__all__ = ("FileGrid", "file_stem", "open_grid", "read_on_grid", "write_on_grid")

Card = tuple[str, str | float | int]

_SUFFIX = re.compile(r"\.(fits?|fts)(\.(gz|fz))?$", re.IGNORECASE)
_SAME_PLACE = 0.01
"""Pixels by which two WCS may differ and still be the same grid."""


@dataclass(frozen=True, slots=True)
class FileGrid:
    """The pixels of one file."""

    geometry: TractGeometry
    """WCS of the grid; its one patch is the grid."""
    profile: Profile
    """How files are read."""
    max_pixels: int
    """Refuse images that claim more."""

    @property
    def box(self) -> Box:
        """All pixels of the grid."""
        return self.geometry.patches.tract_box


def file_stem(path: str) -> str:
    """Return the name of a file without folder and FITS suffixes."""
    return _SUFFIX.sub("", Path(path).name)


def open_grid(path: str, profile: Profile, *, max_pixels: int) -> FileGrid:
    """Return the grid of a file.

    Raises
    ------
    InputError
        Codes of `read_lsst_header`, of `scan_inputs` and of `celestial_wcs`.
    """
    if profile.layout == "lsst":
        header = read_lsst_header(path, max_pixels=max_pixels)
        return FileGrid(_geometry(header.box, header.wcs_cards, header.band), profile, max_pixels)
    file = _scan(path, profile, max_pixels)
    with open_checked(path, max_pixels=max_pixels, checksum=False) as hdus:
        wcs = celestial_wcs(image_hdu(hdus, profile.hdu).header)
    cards = tuple((card.keyword, card.value) for card in wcs.to_header(relax=True).cards)
    height, width = file.shape
    return FileGrid(_geometry(Box(0, 0, width, height), cards, file.band), profile, max_pixels)


def _geometry(box: Box, cards: tuple[Card, ...], band: str | None) -> TractGeometry:
    patches = PatchGrid(box.x0, box.y0, box.width, box.height, 0, 1, 1)
    return TractGeometry("", band or "", cards, patches)


def _scan(path: str, profile: Profile, max_pixels: int) -> InputFile:
    found = scan_inputs([path], profile, max_pixels=max_pixels)
    for rejected in found.rejected:
        raise InputError(rejected.code, rejected.detail, where=path)
    if len(found.files) != 1:
        raise InputError(
            "path-not-a-file", "This is a folder or a pattern, not one file", where=path
        )
    return found.files[0]


def read_on_grid(path: str, grid: FileGrid) -> Warp:
    """Read a file as a warp on the grid.

    Parameters
    ----------
    path
        A local FITS file.
    grid
        Where its pixels are wanted.

    Returns
    -------
    Warp
        Image, variance (that of the sky, where the file has none) and mask on ``grid.box``.

    Raises
    ------
    InputError
        ``grid-mismatch`` for a warp of LSST that lies elsewhere, ``no-data`` when no pixel of the
        grid is covered, and what makes a file unusable.
    """
    if grid.profile.layout == "lsst":
        _check_same_grid(read_lsst_header(path, max_pixels=grid.max_pixels), grid)
        return read_lsst_warp(path, grid.box, max_pixels=grid.max_pixels)
    file = _scan(path, grid.profile, grid.max_pixels)
    warp, rejected = resample_unit(
        [file], grid.profile, grid.geometry, 0, max_pixels=grid.max_pixels
    )
    for found in rejected:
        raise InputError(found.code, found.detail, where=path)
    if warp is None:
        raise InputError("no-data", "The image covers no pixel of the reference", where=path)
    return warp


def _check_same_grid(header: LsstHeader, grid: FileGrid) -> None:
    own = _geometry(header.box, header.wcs_cards, header.band).wcs()
    box = grid.box
    x = np.array([box.x0, box.x1 - 1, box.x0, box.x1 - 1], np.float64)
    y = np.array([box.y0, box.y0, box.y1 - 1, box.y1 - 1], np.float64)
    there = own.all_world2pix(*grid.geometry.wcs().all_pix2world(x, y, 0), 0)
    shift = float(np.abs(np.stack(there) - np.stack([x, y])).max())
    if header.box != box or not shift < _SAME_PLACE:
        raise InputError(
            "grid-mismatch",
            f"The warp covers {header.box}, {shift:.2g} pixels off the reference on {box}",
            where=header.path,
            fix="Give warps of one tract and patch.",
        )


def write_on_grid(
    path: Path, warp: Warp, source: str, grid: FileGrid, cards: Sequence[Card]
) -> None:
    """Write a warp in the layout of the file that it came from.

    Parameters
    ----------
    path
        File to write; it appears whole or not at all.
    warp
        Planes on ``grid.box``. An image without planes for variance and mask stays one.
    source
        The file that it came from, for its labels.
    grid
        Grid, and unit of the pixels.
    cards
        More cards of the primary header.
    """
    if grid.profile.layout == "lsst":
        header = read_lsst_header(source, max_pixels=grid.max_pixels)
        write_lsst_warp(
            path,
            warp,
            grid.geometry.wcs_cards,
            visit=None if header.visit is None else _number(header.visit),
            tract=_number(header.tract or ""),
            patch=_number(header.patch or ""),
            band=header.band or "",
            cards=cards,
        )
        return
    hdu = fits.PrimaryHDU(warp.image, fits.Header(list(grid.geometry.wcs_cards)))
    hdu.header["BUNIT"] = grid.profile.unit
    hdu.header.update(cards)
    # The usual comment holds the time of writing, and equal images must be equal bytes.
    hdu.add_checksum(when="HDU checksum")
    partial = path.with_name(f".{path.name}.partial")
    try:
        hdu.writeto(partial, overwrite=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _number(label: str) -> int | str:
    return int(label) if label.isascii() and label.isdecimal() else label
