"""Offsets on the pixels of detector images: what a calibrated frame of a visit needs added."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import FITSFixedWarning
from numpy.typing import NDArray

from bgmatch_dask import __version__
from bgmatch_dask.background.offsets import on_wcs
from bgmatch_dask.errors import ConfigError, StoreError
from bgmatch_dask.pipeline.results import load_offset
from bgmatch_dask.pipeline.view import MatchedWarps
from bgmatch_dask.report.export import offset_planes
from bgmatch_dask.report.fits_files import Card, card_text, safe_name, write_planes_like
from bgmatch_dask.store import Location, TractStore
from bgmatch_dask.warps.catalogue import celestial_wcs, image_hdu
from bgmatch_dask.warps.fits_checks import open_checked

__all__ = ("export_onto",)

_MAX_PIXELS = 400_000_000


def export_onto(
    location: Location,
    run: str,
    frames: Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    visit: str,
    *,
    hdu: int | None = None,
    flux_per_pixel: bool = True,
) -> list[Path]:
    """Write the offset of a visit on the pixels of images, as ``offset_visit<ID>_onto_<NAME>``.

    Only the header of a frame is used, so that a frame may hold any unit; the offset is in the
    unit of the tract, and is to be *added* to the frame calibrated to that unit.

    Parameters
    ----------
    location, run
        The store and the finished run in it.
    frames
        FITS images with a celestial WCS, such as the detectors of the visit.
    out_dir
        Folder for the files, made when missing; files of the same name are replaced.
    visit
        The visit.
    hdu
        Which HDU of a frame is meant; None: the first image with two dimensions.
    flux_per_pixel
        Pixels hold flux (as those of LSST images do), not surface brightness; see
        `bgmatch_dask.background.offsets.on_wcs`.

    Returns
    -------
    list of Path
        One file per frame: OFFSET, VARIANCE and FLAGS; NaN and 0 off the tract.

    Raises
    ------
    ConfigError
        ``export-conflict`` when each warp of the run was matched alone, or two frames have one
        name.
    StoreError
        ``run-missing``, ``visit-unknown``, ``offset-missing``, or ``nothing-to-export`` when a
        frame does not touch the tract.
    InputError
        When a frame cannot be read, or has no WCS.
    """
    store = TractStore(location)
    matched = MatchedWarps.of(location, run)
    if matched.method != "joint":
        raise ConfigError(
            "export-conflict",
            "Each warp was matched alone: there is no surface over the tract",
            fix="Run with match.method=joint, or export without --onto.",
        )
    paths = [Path(out_dir) / _name(visit, frame) for frame in frames]
    if len(set(paths)) < len(paths):
        raise ConfigError(
            "export-conflict", "Two frames have the same file name", fix="Export one after another."
        )
    offset = load_offset(store, matched.run, visit)
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    cards: list[Card] = [
        ("BGPROD", "offset"),
        ("BGRUN", card_text(run)),
        ("BGREF", card_text(matched.reference)),
        ("BGVERS", __version__),
        ("BGVISIT", card_text(visit)),
        ("BGFLUX", flux_per_pixel),
    ]
    for frame, path in zip(frames, paths, strict=True):
        header, shape = _read_frame(frame, hdu)
        wcs = celestial_wcs(header)
        tract_wcs = store.spec.geometry.wcs()
        found = on_wcs(offset, wcs, shape, tract_wcs, flux_per_pixel=flux_per_pixel)
        if not np.isfinite(found.image).any():
            raise StoreError(
                "nothing-to-export",
                "The frame does not touch the tract",
                where=os.fspath(frame),
                fix="Give frames that overlap the tract.",
            )
        values: tuple[NDArray[Any], ...] = (found.image, found.variance, found.flags)
        planes = list(zip(offset_planes(store), values, strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            like = wcs.to_header(relax=True)
        write_planes_like(path, like, planes, [*cards, ("BGFRAME", card_text(Path(frame).name))])
    return paths


def _name(visit: str, frame: str | os.PathLike[str]) -> str:
    stem = Path(frame).name.removesuffix(".gz").removesuffix(".fz")
    return f"offset_visit{safe_name(visit)}_onto_{safe_name(Path(stem).stem)}.fits"


def _read_frame(
    frame: str | os.PathLike[str], hdu: int | None
) -> tuple[fits.Header, tuple[int, int]]:
    with open_checked(frame, max_pixels=_MAX_PIXELS, checksum=False) as hdus:
        image = image_hdu(hdus, hdu)
        height, width = image.shape
        return image.header.copy(), (int(height), int(width))
