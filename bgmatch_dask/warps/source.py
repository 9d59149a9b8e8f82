"""One door to the pixels of a unit, whatever the files look like."""

from __future__ import annotations

from collections.abc import Sequence

from bgmatch_dask.errors import BgmatchError, InputError, Rejected
from bgmatch_dask.geometry import TractGeometry
from bgmatch_dask.warps.catalogue import InputFile
from bgmatch_dask.warps.lsst import read_lsst_warp
from bgmatch_dask.warps.places import UNREACHABLE
from bgmatch_dask.warps.profile import Profile
from bgmatch_dask.warps.resample import resample_unit
from bgmatch_dask.warps.warp import Warp

__all__ = ("read_unit",)


def read_unit(
    files: Sequence[InputFile],
    profile: Profile,
    geometry: TractGeometry,
    patch: int,
    *,
    max_pixels: int,
    ratio: str | None = None,
) -> tuple[Warp | None, tuple[Rejected, ...]]:
    """Read the warp of one visit on one patch.

    Parameters
    ----------
    files
        The unit's files.
    profile
        How to read them.
    geometry, patch
        Where the warp lies.
    max_pixels
        Refuse images that claim more.
    ratio
        HDU of the photometric ratio in files of the layout `lsst`, see `read_lsst_warp`.

    Returns
    -------
    warp
        None when no file gives a pixel.
    rejected
        Files that could not be used, with the reason.
    """
    if profile.layout == "image":
        return resample_unit(files, profile, geometry, patch, max_pixels=max_pixels)
    rejected: list[Rejected] = []
    warps: list[Warp] = []
    for file in files:
        try:
            if warps:
                raise InputError(
                    "duplicate-unit", f"{files[0].path} already holds this visit and patch"
                )
            box = geometry.patches.outer_box(patch)
            warps.append(read_lsst_warp(file.path, box, max_pixels=max_pixels, ratio=ratio))
        except BgmatchError as error:
            # The next attempt may succeed, so that the file must not count as bad.
            if error.code == UNREACHABLE:
                raise
            rejected.append(Rejected.from_error(error, file.path))
    return (warps[0] if warps else None), tuple(rejected)
