"""Programs that match by constants or polynomials: reproject, stcal, wiimatch."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from benchmarks.peers.scene import STRIDE, Scene, save_corrections

__all__ = ("run_reproject", "run_stcal", "run_wiimatch")


def run_reproject(folder: str, out: str) -> None:
    """Run reproject_and_coadd(match_background=True); its corrections are caught on the way."""
    from reproject import reproject_interp
    from reproject.mosaicking import reproject_and_coadd

    scene = Scene(Path(folder))
    caught: list[NDArray[Any]] = []
    coadd: Any = import_module(reproject_and_coadd.__module__)
    solve = coadd.solve_corrections_sgd

    def watched(*args: Any, **options: Any) -> NDArray[Any]:  # noqa: ANN401
        found: NDArray[Any] = solve(*args, **options)
        caught.append(found)
        return found

    coadd.solve_corrections_sgd = watched
    np.random.seed(1)  # noqa: NPY002  The solver shuffles with the global generator.
    header = scene.header(scene.visits[0])
    reproject_and_coadd(
        [(scene.image(visit), WCS(scene.header(visit))) for visit in scene.visits],
        header,
        shape_out=scene.shape,
        reproject_function=reproject_interp,
        combine_function="mean",
        match_background=True,
    )
    constants = -np.asarray(caught[0])
    save_corrections(out, dict(zip(scene.visits, constants, strict=True)))


def run_stcal(folder: str, out: str) -> None:
    """Run stcal.skymatch with the method and statistic of the JWST pipeline; no coadd."""
    from stcal.skymatch import SkyImage, SkyStats, skymatch

    scene = Scene(Path(folder))
    statistics = SkyStats(skystat="mode", nclip=5, lsig=4.0, usig=4.0)
    images = []
    for visit in scene.visits:
        image = scene.image(visit)
        wcs = WCS(scene.header(visit))
        images.append(
            SkyImage(
                np.where(np.isnan(image), 0, image),
                wcs_fwd=lambda x, y, w=wcs, **_: w.all_pix2world(x, y, 0),
                wcs_inv=lambda ra, dec, w=wcs, **_: w.all_world2pix(ra, dec, 0),
                mask=np.isfinite(image),
                sky_id=visit,
                skystat=statistics,
            )
        )
    skymatch(images, skymethod="match", match_down=False, subtract=False)
    save_corrections(out, {i.sky_id: np.asarray(-float(i.sky)) for i in images})


def run_wiimatch(folder: str, out: str, degree: int, step: int) -> None:
    """Run wiimatch.match_lsq on every ``step``-th pixel; no coadd."""
    from wiimatch.containers import WMInMemoryData
    from wiimatch.match import match_lsq

    scene = Scene(Path(folder))
    images = [scene.image(visit)[::step, ::step].astype(np.float64) for visit in scene.visits]
    # Masks make version 0.3.2 fail; a pixel of enormous sigma has no weight either.
    sigmas = [np.where(np.isfinite(image), 1.0, 1e9) for image in images]
    images = [np.nan_to_num(image) for image in images]
    height, width = images[0].shape
    coefficients = match_lsq(
        images,
        sigmas=sigmas,
        degree=degree,
        center=(height / 2, width / 2),
        solver="RLU",
        default_container=WMInMemoryData,
    )
    y, x = np.indices(scene.shape)[:, ::STRIDE, ::STRIDE] / step
    x, y = x - width / 2, y - height / 2
    powers = [(i, j) for j in range(degree + 1) for i in range(degree + 1)]
    corrections: dict[str, NDArray[Any]] = {}
    for visit, c in zip(scene.visits, np.reshape(coefficients, (len(images), -1)), strict=True):
        corrections[visit] = -sum(v * y**i * x**j for v, (i, j) in zip(c, powers, strict=True))
    save_corrections(out, corrections)
