"""Meshes of 128 px on difference images, or on each image alone: photutils, sep, and our own.

All three get the same arrays, and their meshes are added and stacked by the same lines, so that
their times differ by the meshes alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.scene import STRIDE, Scene, save_corrections

__all__ = ("prepare_own", "run_own", "run_photutils", "run_sep")

_MESH = 128
Image = NDArray[np.float32]


def run_sep(folder: str, out: str, *, absolute: bool) -> None:
    """Run sep.Background over a scene; the coadd is the mean."""
    import sep

    def model(values: Image, bad: NDArray[np.bool_]) -> Image:
        background = sep.Background(np.where(bad, 0, values), mask=bad, bw=_MESH, bh=_MESH)
        return np.asarray(background.back(), np.float32)

    _run(Scene(Path(folder)), out, model, absolute=absolute)


def run_own(folder: str, out: str) -> None:
    """Run our background of one image over the differences of a scene; the coadd is the mean."""
    _run(Scene(Path(folder)), out, _own, absolute=False)


def prepare_own(folder: str) -> None:
    """Compile what our background needs, which a machine does once."""
    del folder
    _own(np.zeros((8 * _MESH, 8 * _MESH), np.float32), np.zeros(1, bool))


def _own(values: Image, bad: NDArray[np.bool_]) -> Image:
    # Not above: the processes of other programs load nothing of ours.
    from bgmatch_dask.numerics.gapfill import fill_gaps
    from bgmatch_dask.numerics.gridded import BackgroundControl, measure_background
    from bgmatch_dask.numerics.rendering import UndersampleStyle

    del bad  # They are NaN.
    few = UndersampleStyle.REDUCE_INTERP_ORDER
    ny, nx = (-(-n // _MESH) for n in values.shape)
    mesh = measure_background(values, BackgroundControl(nx, ny, undersample=few))
    mesh.values[...] = fill_gaps(mesh.values, np.isnan(mesh.values))
    return mesh.render().image


def run_photutils(folder: str, out: str, *, absolute: bool) -> None:
    """Run photutils.Background2D over a scene; the coadd is the mean."""
    from photutils.background import Background2D

    def model(values: Image, bad: NDArray[np.bool_]) -> Image:
        mesh = Background2D(values, _MESH, mask=bad, exclude_percentile=90)
        return np.asarray(mesh.background, np.float32)

    _run(Scene(Path(folder)), out, model, absolute=absolute)


def _run(scene: Scene, out: str, model: Any, *, absolute: bool) -> None:  # noqa: ANN401
    reference = scene.image(scene.visits[0])
    total, number = np.zeros(scene.shape), np.zeros(scene.shape, np.int32)
    corrections: dict[str, NDArray[Any]] = {}
    for visit in scene.visits:
        image = scene.image(visit)
        if absolute:
            added = -model(image, np.isnan(image))
        elif visit == scene.visits[0]:
            added = np.zeros_like(image)
        else:
            difference = reference - image
            if not np.isfinite(difference).any():
                continue  # It does not meet the reference.
            added = model(difference, np.isnan(difference))
        matched = image + added
        good = np.isfinite(matched)
        total[good] += matched[good]
        number += good
        corrections[visit] = added[::STRIDE, ::STRIDE]
    np.divide(total, number, out=total, where=number > 0)
    save_corrections(out, corrections)
