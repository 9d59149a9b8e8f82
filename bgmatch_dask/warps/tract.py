"""Lay out the tract: from warps, by hand, or so that it covers the inputs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io.fits import Header
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area
from numpy.typing import NDArray

from bgmatch_dask.config import TractConfig
from bgmatch_dask.errors import GeometryError, InputError, Rejected
from bgmatch_dask.geometry import Box, PatchGrid, TractGeometry
from bgmatch_dask.warps.catalogue import InputFile
from bgmatch_dask.warps.patch_layout import settle_patches

__all__ = ("Layout", "lay_out")

Cards = tuple[tuple[str, str | float | int], ...]

DEFAULT_INNER = 1024
"""Inner size of a patch [pixels], roughly, where neither the user nor the warps say."""

ROUND_TO = 64
"""Chosen inner sizes are multiples of this, so that chunks can divide the plane."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A tract, and which file touches which of its patches."""

    geometry: TractGeometry
    """The tract."""
    units: tuple[tuple[str, int, tuple[InputFile, ...]], ...]
    """(visit, patch, files), sorted by patch and then by visit in natural order."""
    rejected: tuple[Rejected, ...]
    """Files that do not lie on the tract."""

    @property
    def visits(self) -> tuple[str, ...]:
        """Visit labels in natural order."""
        return tuple(sorted({unit[0] for unit in self.units}, key=natural_key))


def natural_key(label: str) -> tuple[int, int, str]:
    """Return a sort key that puts numbers in numerical order, before other labels."""
    return (0, int(label), label) if label.isdecimal() else (1, 0, label)


def lay_out(
    files: Sequence[InputFile], config: TractConfig, known: TractGeometry | None = None
) -> Layout:
    """Lay out the tract and assign the files to its units.

    Parameters
    ----------
    files
        The inputs.
    config
        What the user says about the tract.
    known
        A tract that exists already; the inputs are laid on it as it is.

    Raises
    ------
    GeometryError
        ``tract-undefined`` or ``patches-unclear`` when the inputs do not settle the geometry.
    """
    if not files:
        raise GeometryError("tract-undefined", "No usable input is left to lay out a tract from")
    if known is not None:
        same, strange = _of_band(files, known)
        lay = _warps_on if files[0].box is not None else _images_on
        return lay(known, same, strange)
    if files[0].box is not None:
        return _from_warps(files, config)
    return _from_images(files, config)


def _of_band(
    files: Sequence[InputFile], known: TractGeometry
) -> tuple[list[InputFile], list[Rejected]]:
    """Return the files of the band of a tract, and of its WCS if they have one, and the others."""
    wcs = InputError("wcs-mismatch", "The WCS is not that of the tract in the store")
    band = InputError("band-mismatch", f"The tract in the store is of band {known.band!r}")
    same: list[InputFile] = []
    rejected: list[Rejected] = []
    for file in files:
        if file.band and known.band and file.band not in known.band.split(","):
            rejected.append(Rejected.from_error(band, file.path))
        elif file.box is not None and _wcs_key(file.wcs_cards) != _wcs_key(known.wcs_cards):
            rejected.append(Rejected.from_error(wcs, file.path))
        else:
            same.append(file)
    return same, rejected


def _from_warps(files: Sequence[InputFile], config: TractConfig) -> Layout:
    cards, same, rejected = _common_wcs(files)
    same, far = _near_warps(same, cards, config)
    boxes = [file.box for file in same if file.box is not None]
    patches, odd = settle_patches(boxes, config)
    unfit = InputError(
        "box-unfit",
        "The warp's size or place is that of no patch of the tract",
        fix="Make the warp again, or set tract.patch_inner and tract.border.",
    )
    rejected += [*far, *(Rejected.from_error(unfit, f.path) for f in same if f.box in odd)]
    same = [file for file in same if file.box not in odd]
    geometry = TractGeometry(config.label, _band(same), cards, patches)
    return _warps_on(geometry, same, rejected)


def _warps_on(
    geometry: TractGeometry, same: Sequence[InputFile], rejected: list[Rejected]
) -> Layout:
    patches = geometry.patches
    units: dict[tuple[int, str], list[InputFile]] = {}
    for file in same:
        patch = _patch_of(file, patches)
        if patch is None:
            error = InputError("outside-tract", "The warp matches no patch of the tract")
            rejected.append(Rejected.from_error(error, file.path))
        else:
            units.setdefault((patch, file.visit), []).append(file)
    return _layout(geometry, units, rejected)


def _common_wcs(
    files: Sequence[InputFile],
) -> tuple[Cards, list[InputFile], list[Rejected]]:
    """Return the WCS that most warps share, the warps that have it, and the others rejected."""
    keys = [_wcs_key(file.wcs_cards) for file in files]
    common = max(sorted(set(keys)), key=keys.count)
    same = [file for file, key in zip(files, keys, strict=True) if key == common]
    error = InputError(
        "wcs-mismatch",
        "The WCS is not that of the other warps",
        fix="Give warps of one tract only.",
    )
    rejected = [
        Rejected.from_error(error, file.path)
        for file, key in zip(files, keys, strict=True)
        if key != common
    ]
    return same[0].wcs_cards, same, rejected


def _near_warps(
    files: Sequence[InputFile], cards: Cards, config: TractConfig
) -> tuple[list[InputFile], list[Rejected]]:
    """Leave out warps whose place would blow up the tract; the patches between are made too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        scale = float(np.sqrt(proj_plane_pixel_area(WCS(Header(list(cards))).celestial)))
    reach = config.max_extent / 2 / scale
    centres = [(f.box.x0 + f.box.width // 2, f.box.y0 + f.box.height // 2) for f in files if f.box]
    middle = tuple(sorted(values)[len(values) // 2] for values in zip(*centres, strict=True))
    far = [max(abs(x - middle[0]), abs(y - middle[1])) > reach for x, y in centres]
    error = InputError(
        "outside-tract",
        f"The warp lies more than {config.max_extent / 2:g} deg from the middle of all warps",
        fix="Leave it out, or raise tract.max_extent.",
    )
    return (
        [f for f, out in zip(files, far, strict=True) if not out],
        [Rejected.from_error(error, f.path) for f, out in zip(files, far, strict=True) if out],
    )


def _wcs_key(cards: Cards) -> tuple[str, ...]:
    """Return the cards rounded to 1e-9, so that the last digits of a writer do not matter."""
    return tuple(
        f"{name}={value:.9g}" if isinstance(value, float | int) else f"{name}={value}"
        for name, value in sorted(cards)
    )


def _patch_of(file: InputFile, patches: PatchGrid) -> int | None:
    if file.box is None:
        return None
    x, y = file.box.x0 + file.box.width // 2, file.box.y0 + file.box.height // 2
    centre = Box(x, y, 1, 1)
    if not patches.tract_box.contains(centre):
        return None
    ix = (x - patches.x0) // patches.inner_width
    return (y - patches.y0) // patches.inner_height * patches.nx + ix


def _from_images(files: Sequence[InputFile], config: TractConfig) -> Layout:
    near, rejected = _near_files(files, config)
    wcs, size = _grid_on_sky(near, config)
    inner_w, inner_h = _inner_size(size, config)
    patches = PatchGrid(
        0, 0, inner_w, inner_h, config.border or 0, -(-size[0] // inner_w), -(-size[1] // inner_h)
    )
    # Rounding up to whole patches adds pixels on both sides, so that the centre stays.
    box = patches.tract_box
    wcs.wcs.crpix = [(box.width + 1) / 2, (box.height + 1) / 2]
    cards: Cards = tuple((c.keyword, c.value) for c in wcs.to_header().cards)
    return _images_on(TractGeometry(config.label, _band(near), cards, patches), near, rejected)


def _images_on(
    geometry: TractGeometry, near: Sequence[InputFile], rejected: list[Rejected]
) -> Layout:
    wcs, patches = geometry.wcs(), geometry.patches
    units: dict[tuple[int, str], list[InputFile]] = {}
    for file in near:
        touched = list(patches.patches_touching(footprint_box(file, wcs)))
        if not touched:
            error = InputError("outside-tract", "The image does not touch the tract")
            rejected.append(Rejected.from_error(error, file.path))
        for patch in touched:
            units.setdefault((patch, file.visit), []).append(file)
    return _layout(geometry, units, rejected)


def _inner_size(size: tuple[int, int], config: TractConfig) -> tuple[int, int]:
    """Return the wanted inner size, or one near the default that wastes few pixels."""
    if config.patch_inner is not None:
        inner = config.patch_inner
        return (inner, inner) if isinstance(inner, int) else inner
    counts = [max(1, round(length / DEFAULT_INNER)) for length in size]
    width, height = (
        -(-length // (n * ROUND_TO)) * ROUND_TO for length, n in zip(size, counts, strict=True)
    )
    return width, height


def footprint_box(file: InputFile, wcs: WCS) -> Box:
    """Return the box of tract pixels that the edge of an image spans."""
    x, y = _edge_in(file, wcs)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Box(0, 0, 0, 0)
    x0, y0 = int(np.floor(x.min())), int(np.floor(y.min()))
    return Box(x0, y0, int(np.ceil(x.max())) - x0 + 1, int(np.ceil(y.max())) - y0 + 1)


def _edge_in(file: InputFile, wcs: WCS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ra, dec = np.array(file.corners).T
    x, y = wcs.wcs_world2pix(ra, dec, 0)
    return np.asarray(x), np.asarray(y)


def _near_files(
    files: Sequence[InputFile], config: TractConfig
) -> tuple[list[InputFile], list[Rejected]]:
    """Leave out files from another part of the sky, which would blow up the tract."""
    middles = _middles(files)
    if config.ra is not None and config.dec is not None:
        centre = SkyCoord(config.ra, config.dec, unit="deg")
    else:
        centre = _median_position(middles)
    far = middles.separation(centre).deg > config.max_extent / 2
    error = InputError(
        "outside-tract",
        f"The image lies more than {config.max_extent / 2:g} deg from the middle of the tract",
        fix="Leave it out, or raise tract.max_extent.",
    )
    rejected = [
        Rejected.from_error(error, f.path) for f, out in zip(files, far, strict=True) if out
    ]
    near = [f for f, out in zip(files, far, strict=True) if not out]
    if not near:
        raise GeometryError(
            "tract-undefined",
            "No image lies near the centre of the tract",
            fix="Check tract.ra and tract.dec.",
        )
    return near, rejected


def _middles(files: Sequence[InputFile]) -> SkyCoord:
    edges = [SkyCoord(np.array(f.corners), unit="deg").cartesian for f in files]
    x, y, z = np.array([edge.xyz.value.mean(axis=1) for edge in edges]).T
    return SkyCoord(np.arctan2(y, x), np.arctan2(z, np.hypot(x, y)), unit="rad")


def _median_position(middles: SkyCoord) -> SkyCoord:
    """Return the member that is nearest to all others, which no outlier can move."""
    sums = [float(np.sum(middles.separation(m).deg)) for m in middles]
    return middles[int(np.argmin(sums))]


def _grid_on_sky(files: Sequence[InputFile], config: TractConfig) -> tuple[WCS, tuple[int, int]]:
    """Return a TAN grid, north up, and its size in pixels."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.radesys = "ICRS"
    scale = config.pixel_scale or float(np.median([f.pixel_scale for f in files]))
    wcs.wcs.cdelt = [-scale / 3600.0, scale / 3600.0]
    wcs.wcs.crpix = [1.0, 1.0]
    if config.ra is not None and config.dec is not None:
        wcs.wcs.crval = [config.ra, config.dec]
    else:
        wcs.wcs.crval = _centre_of_extent(files, wcs)
    x, y = np.concatenate([np.stack(_edge_in(f, wcs)) for f in files], axis=1)
    width = config.width or int(np.ceil(2 * np.abs(x).max())) + 2
    height = config.height or int(np.ceil(2 * np.abs(y).max())) + 2
    return wcs, (width, height)


def _centre_of_extent(files: Sequence[InputFile], wcs: WCS) -> list[float]:
    start = _median_position(_middles(files))
    wcs.wcs.crval = [start.ra.deg, start.dec.deg]
    x, y = np.concatenate([np.stack(_edge_in(f, wcs)) for f in files], axis=1)
    ra, dec = wcs.wcs_pix2world(0.5 * (x.min() + x.max()), 0.5 * (y.min() + y.max()), 0)
    return [float(ra), float(dec)]


def _band(files: Sequence[InputFile]) -> str:
    return ",".join(sorted({f.band for f in files if f.band}))


def _layout(
    geometry: TractGeometry,
    units: dict[tuple[int, str], list[InputFile]],
    rejected: list[Rejected],
) -> Layout:
    ordered = sorted(units.items(), key=lambda item: (item[0][0], natural_key(item[0][1])))
    return Layout(
        geometry,
        tuple((visit, patch, tuple(files)) for (patch, visit), files in ordered),
        tuple(rejected),
    )
