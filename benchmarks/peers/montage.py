"""Montage through its Python library: planes from all pairs, then a mean mosaic."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from benchmarks.peers.scene import STRIDE, Scene, save_corrections

__all__ = ("montage_corrections", "prepare_montage", "run_montage")

_IMAGES = "montage"


def prepare_montage(folder: str) -> None:
    """Write each visit cut to where it has data: of two images of one outline mOverlaps sees one.

    Visits that fill the tract have one outline after that still, so each loses another column.
    """
    scene = Scene(Path(folder))
    images = scene.folder / _IMAGES
    images.mkdir(exist_ok=True)
    for number, visit in enumerate(scene.visits):
        image, header = scene.image(visit), scene.header(visit)
        seen = np.isfinite(image)
        rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
        top, left = int(rows[0]), int(columns[0])
        part = image[top : rows[-1] + 1, left : columns[-1] + 1 - number]
        header["CRPIX1"] -= left
        header["CRPIX2"] -= top
        fits.writeto(images / f"visit-{visit}.fits", part, header, overwrite=True)


def run_montage(folder: str, out: str) -> None:
    """Run mImgtbl, mOverlaps, mDiffFitExec, mBgModel, mBgExec and mAdd on a scene."""
    montage: Any = import_module("MontagePy.main")

    scene = Scene(Path(folder))
    images = str(scene.folder / _IMAGES)
    work = _work(out)
    shutil.rmtree(work, ignore_errors=True)
    for name in ("diffs", "corrected"):
        (work / name).mkdir(parents=True)
    scene.header(scene.visits[0]).totextfile(work / "region.hdr", overwrite=True)
    os.chdir(work)
    steps: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("mImgtbl", lambda: montage.mImgtbl(images, "images.tbl")),
        ("mOverlaps", lambda: montage.mOverlaps("images.tbl", "diffs.tbl")),
        (
            "mDiffFitExec",
            lambda: montage.mDiffFitExec(
                images, "diffs.tbl", "region.hdr", "diffs", "fits.tbl", noAreas=True
            ),
        ),
        ("mBgModel", lambda: montage.mBgModel("images.tbl", "fits.tbl", "corrections.tbl")),
        (
            "mBgExec",
            lambda: montage.mBgExec(
                images, "images.tbl", "corrections.tbl", "corrected", noAreas=True
            ),
        ),
        ("mImgtbl", lambda: montage.mImgtbl("corrected", "corrected.tbl")),
        (
            "mAdd",
            lambda: montage.mAdd(
                "corrected", "corrected.tbl", "region.hdr", "mosaic.fits", haveAreas=False
            ),
        ),
    )
    said = {}
    for name, call in steps:
        status = call()
        if status["status"] != "0":
            raise RuntimeError(f"{name}: {status.get('msg', status)}")
        said[name] = status
    _check(said, len(scene.visits))
    os.chdir(folder)


def montage_corrections(folder: str, out: str) -> None:
    """Write what Montage added to each image: corrected − original."""
    scene, corrected = Scene(Path(folder)), _work(out) / "corrected"
    save_corrections(out, {visit: _correction(scene, visit, corrected) for visit in scene.visits})
    shutil.rmtree(_work(out))


def _work(out: str) -> Path:
    return Path(out).with_suffix(".montage")


def _check(said: dict[str, dict[str, Any]], visits: int) -> None:
    """Refuse a mosaic whose images were not matched: a wrong figure is worse than none."""
    pairs, fitted = int(said["mOverlaps"]["count"]), said["mDiffFitExec"]
    failed = int(fitted["diff_failed"]) + int(fitted["fit_failed"])
    # Outlines of two visits may overlap where neither has data in common: such a fit fails.
    if pairs - failed < visits or failed > 0.2 * pairs:
        raise RuntimeError(f"{pairs} overlaps found, {failed} of them not fitted")


def _correction(scene: Scene, visit: str, corrected: Path) -> NDArray[Any]:
    """Return the plane that was added: corrected − original, on the whole tract."""
    path = next(corrected.glob(f"*visit-{visit}.fits"))
    after = np.asarray(fits.getdata(path), np.float64)
    header, whole = fits.getheader(path), scene.header(visit)
    left = round(whole["CRPIX1"] - header["CRPIX1"])
    top = round(whole["CRPIX2"] - header["CRPIX2"])
    height, width = after.shape
    added = after - scene.image(visit)[top : top + height, left : left + width]
    indices: NDArray[Any] = np.indices(added.shape)
    y, x = indices + np.array([top, left])[:, np.newaxis, np.newaxis]
    good = np.isfinite(added)
    columns = np.stack([np.ones(good.sum()), x[good], y[good]], axis=1)
    c = np.linalg.lstsq(columns, added[good], rcond=None)[0]
    rows, places = np.indices(scene.shape)[:, ::STRIDE, ::STRIDE]
    return np.asarray(c[0] + c[1] * places + c[2] * rows)
