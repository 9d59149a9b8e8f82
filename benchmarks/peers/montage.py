"""Montage through its Python library: planes from all pairs, then a mean mosaic."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.scene import STRIDE, Scene, save_corrections

__all__ = ("run_montage",)


def run_montage(folder: str, out: str) -> None:
    """Run mImgtbl, mOverlaps, mDiffFitExec, mBgModel, mBgExec and mAdd on a scene."""
    montage: Any = import_module("MontagePy.main")

    scene = Scene(Path(folder))
    work = Path(out).with_suffix(".montage")
    shutil.rmtree(work, ignore_errors=True)
    for name in ("images", "diffs", "corrected"):
        (work / name).mkdir(parents=True)
    for visit in scene.visits:
        (work / "images" / f"visit-{visit}.fits").symlink_to(scene.path(visit))
    scene.header(scene.visits[0]).totextfile(work / "region.hdr", overwrite=True)
    os.chdir(work)
    steps: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("mImgtbl", lambda: montage.mImgtbl("images", "images.tbl")),
        ("mOverlaps", lambda: montage.mOverlaps("images.tbl", "diffs.tbl")),
        (
            "mDiffFitExec",
            lambda: montage.mDiffFitExec(
                "images", "diffs.tbl", "region.hdr", "diffs", "fits.tbl", noAreas=True
            ),
        ),
        ("mBgModel", lambda: montage.mBgModel("images.tbl", "fits.tbl", "corrections.tbl")),
        (
            "mBgExec",
            lambda: montage.mBgExec(
                "images", "images.tbl", "corrections.tbl", "corrected", noAreas=True
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
    for name, call in steps:
        status = call()
        if status["status"] != "0":
            raise RuntimeError(f"{name}: {status.get('msg', status)}")
        if int(status.get("diff_failed", 0)) or int(status.get("fit_failed", 0)):
            raise RuntimeError(f"{name}: {status}")
    save_corrections(out, {v: _correction(scene, v, work / "corrected") for v in scene.visits})
    os.chdir(folder)
    shutil.rmtree(work)


def _correction(scene: Scene, visit: str, corrected: Path) -> NDArray[Any]:
    """Return the plane that was added: corrected − original, continued where there is no data."""
    from astropy.io import fits

    after = np.asarray(fits.getdata(corrected / f"visit-{visit}.fits"), np.float64)
    added = (after - scene.image(visit))[::STRIDE, ::STRIDE]
    indices: NDArray[Any] = np.indices(added.shape)
    y, x = indices
    good = np.isfinite(added)
    columns = np.stack([np.ones(good.sum()), x[good], y[good]], axis=1)
    c = np.linalg.lstsq(columns, added[good], rcond=None)[0]
    return np.asarray(c[0] + c[1] * x + c[2] * y)
