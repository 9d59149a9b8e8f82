"""Resample calibrated images of any WCS onto the tract grid (package ``reproject``)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area
from numpy.typing import NDArray

from bgmatch_dask.errors import BgmatchError, InputError, Rejected
from bgmatch_dask.geometry import Box, TractGeometry
from bgmatch_dask.maskplanes import MASK_PLANES, NO_DATA
from bgmatch_dask.warps.catalogue import InputFile, celestial_wcs, image_hdu
from bgmatch_dask.warps.fits_checks import open_checked
from bgmatch_dask.warps.noise import sky_sigma
from bgmatch_dask.warps.places import UNREACHABLE
from bgmatch_dask.warps.profile import Profile
from bgmatch_dask.warps.tile_sizes import check_tiles
from bgmatch_dask.warps.tract import footprint_box
from bgmatch_dask.warps.warp import Warp

__all__ = ("resample_unit",)


@dataclass(frozen=True, slots=True)
class _Frame:
    """One image as it lies in its file, on the common flux scale."""

    image: NDArray[np.float32]
    mask: NDArray[np.int32]
    sigma: float
    wcs: WCS


def resample_unit(
    files: Sequence[InputFile],
    profile: Profile,
    geometry: TractGeometry,
    patch: int,
    *,
    max_pixels: int,
) -> tuple[Warp | None, tuple[Rejected, ...]]:
    """Put the files of one visit together into its warp on one patch.

    Interpolation is bilinear; in the outer half of an image's edge pixels, where there is no
    second pixel, the value is that of the edge. A pixel next to a masked or missing one takes its
    planes. Where files overlap, the first one in order of path wins, so that the result is one
    exposure's pixels, not an average with other noise. The variance is the square of each file's
    sky noise, measured on its own pixels (`bgmatch_dask.warps.noise`); photon noise of sources is
    not in it.

    Parameters
    ----------
    files
        Files of the visit that touch the patch.
    profile
        How to read them.
    geometry, patch
        Where the warp lies.
    max_pixels
        Refuse images that claim more.

    Returns
    -------
    warp
        On the outer box of the patch; None when no file gives a pixel.
    rejected
        Files that could not be read.
    """
    box = geometry.patches.outer_box(patch)
    image = np.full(box.shape, np.nan, np.float32)
    variance = np.full(box.shape, np.inf, np.float32)
    mask = np.full(box.shape, NO_DATA, np.int32)
    rejected: list[Rejected] = []
    tract_wcs = geometry.wcs()
    for file in files:
        try:
            frame = _read_frame(file, profile, max_pixels, tract_wcs)
        except BgmatchError as error:
            # The next attempt may succeed, so that the file must not count as bad.
            if error.code == UNREACHABLE:
                raise
            rejected.append(Rejected.from_error(error, file.path))
            continue
        part = footprint_box(file, tract_wcs).grow(1).intersect(box)
        if part.empty:
            continue
        ys, xs = part.slices_in(box)
        pixels, bits = _resample(frame, geometry.wcs(part), part)
        fresh = np.isfinite(pixels) & (mask[ys, xs] & NO_DATA != 0)
        image[ys, xs][fresh] = pixels[fresh]
        variance[ys, xs][fresh] = np.float32(frame.sigma**2)
        mask[ys, xs][fresh] = bits[fresh]
    if not np.isfinite(image).any():
        return None, tuple(rejected)
    return Warp(box, image, variance, mask), tuple(rejected)


def _read_frame(file: InputFile, profile: Profile, max_pixels: int, tract_wcs: WCS) -> _Frame:
    with open_checked(file.path, max_pixels=max_pixels, checksum=profile.checksum) as hdus:
        hdu = image_hdu(hdus, profile.hdu)
        header = hdu.header.copy()
        check_tiles(hdu)
        raw = np.asarray(hdu.data, dtype=np.float64)
        inner_mask = _mask_in_file(hdus, profile, raw.shape)
    wcs = celestial_wcs(header)
    mask = _mask_beside(file, profile, raw.shape, max_pixels) if inner_mask is None else inner_mask
    limit = profile.saturation.find(header)
    if limit is not None:
        mask[raw >= limit] |= np.int32(1 << MASK_PLANES["SAT"])
    level = profile.subtract.find(header) or 0.0
    # What is beyond float32 is no brightness: it becomes infinite, and then no data.
    with np.errstate(over="ignore", invalid="ignore"):
        image = ((raw - level) * _factor(profile, header, wcs, tract_wcs)).astype(np.float32)
    image[~np.isfinite(image)] = np.nan
    sigma = sky_sigma(image)
    if sigma is None:
        raise InputError(
            "no-data", "The image holds too few finite pixels", fix="Leave the file out."
        )
    return _Frame(image, mask, sigma, wcs)


def _factor(profile: Profile, header: Any, wcs: WCS, tract_wcs: WCS) -> float:  # noqa: ANN401
    scale = profile.zero_point.scale(header) if profile.zero_point else 1.0
    if profile.flux_per_pixel:
        scale *= float(proj_plane_pixel_area(tract_wcs) / proj_plane_pixel_area(wcs))
    return scale


def _mask_in_file(hdus: Any, profile: Profile, shape: tuple[int, ...]) -> NDArray[np.int32] | None:  # noqa: ANN401
    if profile.mask is None or profile.mask.hdu is None:
        return None
    check_tiles(hdus[profile.mask.hdu])
    return _named_planes(np.asarray(hdus[profile.mask.hdu].data), profile, shape)


def _mask_beside(
    file: InputFile, profile: Profile, shape: tuple[int, ...], max_pixels: int
) -> NDArray[np.int32]:
    if profile.mask is None or profile.mask.companion is None:
        return np.zeros(shape, np.int32)
    path = profile.mask.companion.path_of(file.path)
    if path is None or not path.exists():
        return np.zeros(shape, np.int32)
    with open_checked(path, max_pixels=max_pixels) as hdus:
        hdu = image_hdu(hdus, None)
        check_tiles(hdu)
        return _named_planes(np.asarray(hdu.data), profile, shape)


def _named_planes(
    bits: NDArray[np.integer], profile: Profile, shape: tuple[int, ...]
) -> NDArray[np.int32]:
    if bits.shape != shape or profile.mask is None:
        raise InputError("plane-shape", f"The mask has the shape {bits.shape}, the image {shape}")
    if bits.dtype.kind not in "iu":
        raise InputError(
            "plane-dtype", f"The mask holds {bits.dtype.name}, it should hold integers"
        )
    mask = np.zeros(shape, np.int32)
    for name, bit in profile.mask.planes.items():
        mask |= ((bits >> bit) & 1).astype(np.int32) << np.int32(MASK_PLANES[name])
    return mask


def _resample(frame: _Frame, wcs: WCS, part: Box) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    # It brings Dask's arrays, xarray and pandas: 100 MB that jobs with warps do without.
    from reproject import reproject_interp

    layers = [frame.image, *_present_planes(frame.mask).values()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        stack, _ = reproject_interp(
            (np.stack(layers), frame.wcs), wcs, shape_out=part.shape, roundtrip_coords=False
        )
    bits = np.zeros(part.shape, np.int32)
    for bit, layer in zip(_present_planes(frame.mask), stack[1:], strict=True):
        bits[layer > 0] |= np.int32(1 << bit)
    return stack[0].astype(np.float32), bits


def _present_planes(mask: NDArray[np.int32]) -> dict[int, NDArray[np.float32]]:
    used = int(np.bitwise_or.reduce(mask, axis=None))
    return {bit: ((mask >> bit) & 1).astype(np.float32) for bit in range(31) if used >> bit & 1}
