"""Lists of gridded backgrounds as FITS files, in the layout of LSST ``afw.math.BackgroundList``.

Three HDUs per background: image, mask and variance of its cells, the first of them in the primary
HDU. Each HDU repeats the cards ``INTERPSTYLE``, ``UNDERSAMPLESTYLE``, ``APPROXSTYLE`` (-1: none,
0: Chebyshev), ``APPROXORDERX``, ``APPROXORDERY``, ``APPROXWEIGHTING``, ``BKGD_X0``, ``BKGD_Y0``,
``BKGD_WIDTH`` and ``BKGD_HEIGHT``. Two cards are ours and may be absent: ``APPROXWEIGHTKIND``, and
``BKGD_COUNT``, without which a file cut between two backgrounds would look whole.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from bgmatch_dask.errors import BgmatchError, ConfigError, InputError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.background_list import BackgroundElement, BackgroundList
from bgmatch_dask.numerics.chebyshev import ChebyshevControl, Weighting
from bgmatch_dask.numerics.gridded import (
    BackgroundControl,
    GriddedBackground,
    background_from_values,
)
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.rendering import UndersampleStyle
from bgmatch_dask.warps.fits_checks import open_checked

__all__ = ("read_background_list", "write_background_list")

_PLANES = 3
_MAX_CELLS = 2**26
_NO_APPROXIMATION = -1
_CHEBYSHEV = 0
_PLANE_TYPES = (np.float32, np.int32, np.float32)


def write_background_list(backgrounds: BackgroundList, path: str | os.PathLike[str]) -> None:
    """Write a list of backgrounds; the file appears whole or not at all.

    Parameters
    ----------
    backgrounds
        At least one background. Cell values, styles and boxes are kept exactly; the statistics that
        made the cells are not part of the layout.
    path
        A local file, replaced if it exists.

    Raises
    ------
    ConfigError
        ``background-list-empty``.
    """
    if len(backgrounds) == 0:
        raise ConfigError(
            "background-list-empty",
            "A list without backgrounds cannot be written: the layout has no place for it",
            where=os.fspath(path),
        )
    hdus = fits.HDUList()
    for element in backgrounds:
        background = element.background
        header = fits.Header([*_cards(element), ("HIERARCH BKGD_COUNT", len(backgrounds))])
        for plane in (background.values, background.mask, background.variance):
            kind = fits.ImageHDU if hdus else fits.PrimaryHDU
            hdus.append(kind(plane, header))
    hdus.update_extend()
    for hdu in hdus:
        # The usual comment holds the time of writing, and equal lists must be equal bytes.
        hdu.add_checksum(when="HDU checksum")
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial")
    try:
        hdus.writeto(partial, overwrite=True)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _cards(element: BackgroundElement) -> list[tuple[str, int | bool | str]]:
    polynomial, box = element.approximation, element.background.box
    order = -1 if polynomial is None else polynomial.order
    weighting = Weighting.INVERSE_VARIANCE if polynomial is None else polynomial.weighting
    # HIERARCH is what long keywords need; without it astropy warns.
    return [
        ("HIERARCH INTERPSTYLE", element.style.value),
        ("HIERARCH UNDERSAMPLESTYLE", element.undersample.value),
        ("HIERARCH APPROXSTYLE", _NO_APPROXIMATION if polynomial is None else _CHEBYSHEV),
        ("HIERARCH APPROXORDERX", order),
        ("HIERARCH APPROXORDERY", order),
        ("HIERARCH APPROXWEIGHTING", weighting is not Weighting.NONE),
        ("HIERARCH APPROXWEIGHTKIND", weighting.value),
        ("BKGD_X0", box.x0),
        ("BKGD_Y0", box.y0),
        ("HIERARCH BKGD_WIDTH", box.width),
        ("HIERARCH BKGD_HEIGHT", box.height),
    ]


def read_background_list(path: str | os.PathLike[str]) -> BackgroundList:
    """Read a list of backgrounds.

    Parameters
    ----------
    path
        A local file, of this package or of the LSST stack.

    Returns
    -------
    BackgroundList
        Elements in the order of the file.

    Raises
    ------
    InputError
        ``background-fits-layout`` when planes or cards are missing or make no sense, and the codes
        of `bgmatch_dask.warps.fits_checks.open_checked`.
    """
    where = os.fspath(path)
    with open_checked(path, max_pixels=_MAX_CELLS) as hdus:
        if len(hdus) % _PLANES or not all(hdu.is_image for hdu in hdus):
            raise _layout(f"{len(hdus)} HDUs are not three images per background", where)
        count = len(hdus) // _PLANES
        if hdus[0].header.get("BKGD_COUNT", count) != count:
            raise _layout(f"There are {count} backgrounds, fewer than were written", where)
        elements = [
            _element(hdus[first : first + _PLANES], where) for first in range(0, len(hdus), _PLANES)
        ]
    return BackgroundList(elements)


def _element(hdus: Any, where: str) -> BackgroundElement:  # noqa: ANN401
    if any(hdu.header["NAXIS"] != 2 or hdu.shape != hdus[0].shape for hdu in hdus):
        raise _layout("The planes of a background are not grids of one shape", where)
    planes = [
        np.asarray(hdu.data).astype(kind) for hdu, kind in zip(hdus, _PLANE_TYPES, strict=True)
    ]
    try:
        element = _assemble(hdus[0].header, planes)
    except KeyError as error:
        raise _layout(f"A card is missing: {error}", where) from error
    except (BgmatchError, ValueError, TypeError) as error:
        raise _layout(f"The cards of a background make no sense: {error}", where) from error
    return element


def _assemble(header: fits.Header, planes: list[Any]) -> BackgroundElement:
    box = Box(*(int(header[f"BKGD_{key}"]) for key in ("X0", "Y0", "WIDTH", "HEIGHT")))
    style = InterpStyle(header["INTERPSTYLE"])
    undersample = UndersampleStyle(header["UNDERSAMPLESTYLE"])
    polynomial = _polynomial(header)
    ny, nx = planes[0].shape
    control = BackgroundControl(nx, ny, style, undersample, approximation=polynomial)
    values, mask, variance = planes
    background: GriddedBackground = background_from_values(box, values, variance, mask, control)
    return BackgroundElement(background, style, undersample, polynomial)


def _polynomial(header: fits.Header) -> ChebyshevControl | None:
    style = int(header["APPROXSTYLE"])
    if style == _NO_APPROXIMATION:
        return None
    if style != _CHEBYSHEV:
        raise ValueError(f"unknown approximation style {style}")
    if "APPROXWEIGHTKIND" in header:
        weighting = Weighting(header["APPROXWEIGHTKIND"])
    else:
        weighting = Weighting.INVERSE_VARIANCE if header["APPROXWEIGHTING"] else Weighting.NONE
    return ChebyshevControl(
        int(header["APPROXORDERX"]), weighting, order_y=int(header["APPROXORDERY"])
    )


def _layout(what: str, where: str) -> InputError:
    return InputError(
        "background-fits-layout", what, where=where, fix="Write the list of backgrounds again."
    )
