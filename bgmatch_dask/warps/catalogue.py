"""Find the input files and read what their headers say; pixels are not touched."""

from __future__ import annotations

import glob
import hashlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area

from bgmatch_dask.errors import BgmatchError, InputError, Rejected
from bgmatch_dask.geometry import Box
from bgmatch_dask.warps.fits_checks import open_checked
from bgmatch_dask.warps.lsst import read_lsst_header
from bgmatch_dask.warps.profile import Profile

__all__ = ("Catalogue", "InputFile", "celestial_wcs", "image_hdu", "scan_inputs")

Cards = tuple[tuple[str, str | float | int], ...]


_WCS_NUMBERS = (
    *(f"{name}{axis}" for name in ("CRVAL", "CRPIX", "CDELT", "CROTA") for axis in "12"),
    *(f"{name}{i}_{j}" for name in ("CD", "PC") for i in "12" for j in "12"),
)


@dataclass(frozen=True, slots=True)
class InputFile:
    """One usable input, as its headers describe it."""

    path: str
    """Where it lies."""
    visit: str
    """Visit label."""
    band: str
    """Band label, empty when unknown."""
    size: int
    """Bytes on disk."""
    modified_ns: int
    """Time of last change on disk [ns]; with `size`, tells whether a file was replaced."""
    shape: tuple[int, int]
    """Rows and columns of the image."""
    box: Box | None
    """Tract pixels of a warp; None for an image on its own grid."""
    wcs_cards: Cards
    """Celestial WCS of a warp in tract pixels; empty for an image."""
    corners: tuple[tuple[float, float], ...] = ()
    """Sky positions along the edge of an image [deg]; empty for a warp."""
    pixel_scale: float = 0.0
    """Pixel size of an image [arcsec]."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What was found."""

    files: tuple[InputFile, ...]
    """Usable inputs, sorted by path."""
    rejected: tuple[Rejected, ...]
    """Inputs that cannot be used."""
    passed_over: int
    """Files that the profile says are not inputs."""


def scan_inputs(paths: Iterable[str], profile: Profile, *, max_pixels: int) -> Catalogue:
    """Read the headers of all inputs.

    Parameters
    ----------
    paths
        Files, directories (their FITS files) and glob patterns.
    profile
        How to read them.
    max_pixels
        Refuse images that claim more.

    Returns
    -------
    Catalogue
        What can be used and what cannot.

    Raises
    ------
    InputError
        ``inputs-empty`` when nothing matches.
    """
    # Workers may run in another folder, so that only absolute paths mean the same to them.
    names = list(dict.fromkeys(str(Path(name).absolute()) for name in _expand(paths)))
    wanted = [name for name in names if profile.accepts(Path(name).name)]
    if not wanted:
        raise InputError(
            "inputs-empty",
            "No input file was found",
            where=", ".join(paths),
            fix=f"Check the paths; the profile {profile.name!r} reads {profile.files or 'FITS'}.",
        )
    files: list[InputFile] = []
    rejected: list[Rejected] = []
    for name in sorted(wanted):
        try:
            files.append(_describe(name, profile, max_pixels))
        except BgmatchError as error:
            rejected.append(Rejected.from_error(error, name))
    kept, doubles = _drop_doubles(files)
    return Catalogue(kept, (*rejected, *doubles), len(names) - len(wanted))


def image_hdu(hdus: fits.HDUList, choice: str | int | None) -> Any:  # noqa: ANN401
    """Return the HDU with the image: the chosen one, else the first with two dimensions.

    Raises
    ------
    InputError
        ``plane-missing`` when there is none.
    """
    for hdu in hdus if choice is None else [hdus[choice]]:
        if hdu.is_image and len(hdu.shape) == 2 and 0 not in hdu.shape:
            return hdu
    raise InputError("plane-missing", f"There is no image with two dimensions (HDU {choice})")


def _expand(paths: Iterable[str]) -> Iterator[str]:
    for item in paths:
        if Path(item).is_dir():
            yield from sorted(str(p) for p in Path(item).iterdir() if ".fit" in p.name.lower())
        elif glob.has_magic(item) and not Path(item).exists():
            yield from sorted(glob.glob(item, recursive=True))
        else:
            yield item


def _describe(path: str, profile: Profile, max_pixels: int) -> InputFile:
    if profile.layout == "lsst":
        return _describe_warp(path, profile, max_pixels)
    with open_checked(path, max_pixels=max_pixels, checksum=False) as hdus:
        hdu = image_hdu(hdus, profile.hdu)
        header, shape = hdu.header, hdu.shape
        wcs = celestial_wcs(header)
    corners, scale = _on_sky(wcs, shape)
    return InputFile(
        **_labels(path, profile, header),
        shape=(int(shape[0]), int(shape[1])),
        box=None,
        wcs_cards=(),
        corners=corners,
        pixel_scale=scale,
    )


def _describe_warp(path: str, profile: Profile, max_pixels: int) -> InputFile:
    warp = read_lsst_header(path, max_pixels=max_pixels)
    labels = _labels(path, profile, {"EXPID": warp.visit or "", "FILTER": warp.band or ""})
    return InputFile(**labels, shape=warp.box.shape, box=warp.box, wcs_cards=warp.wcs_cards)


def _labels(path: str, profile: Profile, header: Any) -> dict[str, Any]:  # noqa: ANN401
    name = Path(path).name
    visit = profile.visit.find(header, name)
    if not visit:
        raise InputError(
            "visit-missing",
            "The visit cannot be told from the header or the file name",
            where=path,
            fix=f"Adapt `visit` in the profile {profile.name!r}.",
        )
    status = Path(path).stat()
    band = profile.band.find(header, name) or ""
    return {
        "path": path,
        "visit": visit,
        "band": band,
        "size": status.st_size,
        "modified_ns": status.st_mtime_ns,
    }


def celestial_wcs(header: fits.Header) -> WCS:
    """Return the two-dimensional celestial WCS of a header.

    Raises
    ------
    InputError
        ``wcs-missing`` when there is none, ``wcs-unusable`` when it cannot be read.
    """
    for key in _WCS_NUMBERS:
        # A card that is text would count as zero, or as one, without a word.
        if isinstance(header.get(key), str):
            raise InputError("wcs-unusable", f"The card {key} holds no number")
    with warnings.catch_warnings():
        # Old surveys write cards that astropy repairs and reports; the result is checked below.
        warnings.simplefilter("ignore", AstropyWarning)
        try:
            wcs = WCS(header, naxis=2)
        except (ValueError, TypeError, KeyError, MemoryError) as error:
            raise InputError("wcs-unusable", f"The WCS cannot be read: {error}") from error
    if not wcs.has_celestial:
        raise InputError(
            "wcs-missing", "There is no celestial WCS", fix="Solve the image's astrometry first."
        )
    return wcs


def _on_sky(wcs: WCS, shape: tuple[int, int]) -> tuple[tuple[tuple[float, float], ...], float]:
    """Return the edge of an image [deg] and its pixel size [arcsec]."""
    try:
        # Absurd matrices overflow; the results are checked.
        with np.errstate(all="ignore"):
            corners = _edge_on_sky(wcs, shape)
            scale = float(np.sqrt(proj_plane_pixel_area(wcs)) * 3600.0)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        # Singular matrices, frames that astropy does not know, projections without a solution.
        raise InputError("wcs-unusable", f"The WCS gives no sky positions: {error}") from error
    if not (np.isfinite(scale) and scale > 0):
        raise InputError("wcs-unusable", f"The WCS gives pixels of {scale} arcsec")
    return corners, scale


def _edge_on_sky(wcs: WCS, shape: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    height, width = shape
    xs = np.linspace(0, width, 9) - 0.5
    ys = np.linspace(0, height, 9) - 0.5
    x = np.concatenate([xs, xs, np.full(9, -0.5), np.full(9, width - 0.5)])
    y = np.concatenate([np.full(9, -0.5), np.full(9, height - 0.5), ys, ys])
    sky = wcs.pixel_to_world(x, y).icrs
    positions = np.stack([sky.ra.deg, sky.dec.deg], axis=1)
    if not np.isfinite(positions).all():
        raise InputError("wcs-unusable", "The WCS gives no sky position for the image's edge")
    return tuple((float(ra), float(dec)) for ra, dec in positions)


def _drop_doubles(
    files: list[InputFile],
) -> tuple[tuple[InputFile, ...], tuple[Rejected, ...]]:
    """Keep one of equal files; of two that contradict each other, the first."""
    kept: dict[tuple[object, ...], InputFile] = {}
    rejected: list[Rejected] = []
    for file in files:
        key = (file.visit, file.box, file.corners)
        first = kept.setdefault(key, file)
        if first is not file and _content(first) != _content(file):
            error = InputError(
                "duplicate-unit",
                f"Visit {file.visit} is already covered here by {first.path}, with other bytes",
                fix="Keep one of the two files.",
            )
            rejected.append(Rejected.from_error(error, file.path))
    return tuple(kept.values()), tuple(rejected)


def _content(file: InputFile) -> bytes:
    with Path(file.path).open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").digest()
