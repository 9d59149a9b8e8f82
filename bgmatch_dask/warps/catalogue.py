"""Find the input files and read what their headers say; pixels are not touched."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area

from bgmatch_dask.errors import BgmatchError, InputError, Rejected
from bgmatch_dask.geometry import Box
from bgmatch_dask.warps.fits_checks import open_checked
from bgmatch_dask.warps.fits_structure import BYTES_PER_PIXEL
from bgmatch_dask.warps.lsst import read_lsst_header
from bgmatch_dask.warps.places import UNREACHABLE, file_name, is_remote, read_input, stat_input
from bgmatch_dask.warps.profile import Profile
from bgmatch_dask.warps.sources import Found, PathSource, Source
from bgmatch_dask.warps.visit_facts import Facts, facts_of

__all__ = (
    "Catalogue",
    "Describe",
    "InputFile",
    "celestial_wcs",
    "describe_inputs",
    "image_hdu",
    "scan_inputs",
)

Cards = tuple[tuple[str, str | float | int], ...]


MAX_LABEL = 64
"""Characters that the label of a visit or a band may have."""

_WCS_NUMBERS = (
    *(f"{name}{axis}" for name in ("CRVAL", "CRPIX", "CDELT", "CROTA") for axis in "12"),
    *(f"{name}{i}_{j}" for name in ("CD", "PC") for i in "12" for j in "12"),
)


@dataclass(frozen=True, slots=True)
class InputFile:
    """One usable input, as its headers describe it."""

    path: str
    """Where it lies: an absolute path or a URL."""
    visit: str
    """Visit label."""
    band: str
    """Band label, empty when unknown."""
    size: int
    """Bytes on disk."""
    modified_ns: int
    """Time of last change [ns]; with `size` and `etag`, tells whether a file was replaced."""
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
    etag: str = ""
    """A server's mark of this version of the file; empty on disk."""
    facts: Facts = ()
    """What is known of the visit: names and units in `bgmatch_dask.warps.visit_facts.FACTS`."""
    data_id: tuple[tuple[str, int | str], ...] = ()
    """The Butler's names of the dataset; empty for a file that is none."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What was found."""

    files: tuple[InputFile, ...]
    """Usable inputs, sorted by path."""
    rejected: tuple[Rejected, ...]
    """Inputs that cannot be used."""
    passed_over: int
    """Files that the profile says are not inputs."""


class Describe(Protocol):
    """Reads the headers of inputs, here or elsewhere."""

    def __call__(
        self, found: Sequence[Found], profile: Profile, max_pixels: int
    ) -> Iterable[tuple[str, InputFile | Rejected]]:
        """Yield the path of each input and what its headers say, in any order."""
        ...


def describe_inputs(
    found: Sequence[Found], profile: Profile, max_pixels: int
) -> list[tuple[str, InputFile | Rejected]]:
    """Return the path of each input and what its headers say, or why it cannot be used.

    Raises
    ------
    InputError
        ``input-unreachable`` when a server is silent.
    """
    described: list[tuple[str, InputFile | Rejected]] = []
    for item in found:
        try:
            described.append((item.path, _describe(item, profile, max_pixels)))
        except BgmatchError as error:
            if error.code == UNREACHABLE:
                raise
            described.append((item.path, Rejected.from_error(error, _plain(item.path))))
    return described


def scan_inputs(
    inputs: Source | Iterable[str],
    profile: Profile,
    *,
    max_pixels: int,
    describe: Describe = describe_inputs,
) -> Catalogue:
    """Read the headers of all inputs.

    Parameters
    ----------
    inputs
        A source, or what `PathSource` takes: files, folders, patterns, lists, URLs.
    profile
        How to read them.
    max_pixels
        Refuse images that claim more.
    describe
        Reads the headers; the result does not depend on the order in which it yields them.

    Returns
    -------
    Catalogue
        What can be used and what cannot.

    Raises
    ------
    InputError
        ``inputs-empty`` when nothing matches; ``input-unreachable`` when a server is silent.
    """
    source = inputs if hasattr(inputs, "find") else PathSource(tuple(inputs))
    found = {item.path: item for item in source.find()}
    wanted = [path for path in found if profile.accepts(file_name(path))]
    if not wanted:
        raise InputError(
            "inputs-empty",
            "No input file was found",
            where=_plain(", ".join(source.paths) if isinstance(source, PathSource) else ""),
            fix=f"Check the paths; the profile {profile.name!r} reads {profile.files or 'FITS'}.",
        )
    described = dict(describe([found[path] for path in wanted], profile, max_pixels))
    ordered = [described[path] for path in sorted(wanted)]
    files = [item for item in ordered if isinstance(item, InputFile)]
    rejected = [item for item in ordered if isinstance(item, Rejected)]
    kept, doubles = _drop_doubles(files, BYTES_PER_PIXEL * max_pixels)
    return Catalogue(kept, (*rejected, *doubles), len(found) - len(wanted))


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


def _describe(found: Found, profile: Profile, max_pixels: int) -> InputFile:
    path = found.path
    if _plain(path) != path:
        raise InputError(
            "path-unusable",
            "The path holds bytes that are no text, or control characters",
            fix="Rename the file.",
        )
    if profile.layout == "lsst":
        return _describe_warp(found, profile, max_pixels)
    with open_checked(path, max_pixels=max_pixels, checksum=False) as hdus:
        hdu = image_hdu(hdus, profile.hdu)
        header, shape = hdu.header, hdu.shape
        facts = facts_of(header, hdus[0].header)
        wcs = celestial_wcs(header)
    corners, scale = _on_sky(wcs, shape)
    return InputFile(
        **_labels(found, profile, header, facts),
        shape=(int(shape[0]), int(shape[1])),
        box=None,
        wcs_cards=(),
        corners=corners,
        pixel_scale=scale,
    )


def _describe_warp(found: Found, profile: Profile, max_pixels: int) -> InputFile:
    warp = read_lsst_header(found.path, max_pixels=max_pixels)
    cards = {"EXPID": warp.visit or "", "FILTER": warp.band or ""}
    labels = _labels(found, profile, cards, warp.facts)
    return InputFile(**labels, shape=warp.box.shape, box=warp.box, wcs_cards=warp.wcs_cards)


def _labels(found: Found, profile: Profile, header: Any, facts: Facts) -> dict[str, Any]:  # noqa: ANN401
    path = found.path
    name = file_name(path)
    visit = found.visit or profile.visit.find(header, name)
    if not visit:
        raise InputError(
            "visit-missing",
            "The visit cannot be told from the header or the file name",
            where=path,
            fix=f"Adapt `visit` in the profile {profile.name!r}.",
        )
    status = stat_input(path)
    return {
        "path": path,
        "visit": _checked_label("visit", visit),
        "band": _checked_label("band", found.band or profile.band.find(header, name) or ""),
        "size": status.size,
        "modified_ns": status.modified_ns,
        "etag": status.etag,
        "facts": tuple(dict((*facts, *found.facts)).items()),
        "data_id": found.data_id,
    }


def _checked_label(kind: str, label: str) -> str:
    """Refuse what could lead a path astray or confuse a terminal; markup is the report's task."""
    astray = label in {".", ".."} or set(label) & set("/\\")
    if len(label) > MAX_LABEL or not label.isprintable() or astray:
        raise InputError(
            "label-unusable",
            f"The label of the {kind} is longer than {MAX_LABEL} characters, or holds a slash or "
            "a control character",
            fix=f"Correct the header, or adapt `{kind}` in the profile.",
        )
    return label


def _plain(text: str) -> str:
    """Return text with everything escaped that is no printable character."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in safe)


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
    files: list[InputFile], limit: int
) -> tuple[tuple[InputFile, ...], tuple[Rejected, ...]]:
    """Keep one of equal files; of two that contradict each other, the first."""
    kept: dict[tuple[object, ...], InputFile] = {}
    rejected: list[Rejected] = []
    for file in files:
        key = (file.visit, file.box, file.corners)
        first = kept.setdefault(key, file)
        if first is not file and _content(first, limit) != _content(file, limit):
            error = InputError(
                "duplicate-unit",
                f"Visit {file.visit} is already covered here by {first.path}, with other bytes",
                fix="Keep one of the two files.",
            )
            rejected.append(Rejected.from_error(error, file.path))
    return tuple(kept.values()), tuple(rejected)


def _content(file: InputFile, limit: int) -> bytes:
    if is_remote(file.path):
        return hashlib.blake2b(read_input(file.path, limit) or b"").digest()
    with Path(file.path).open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").digest()
