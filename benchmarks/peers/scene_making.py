"""Joins warps to the images that other programs are given, with the truth beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from benchmarks.peers.scene import STRIDE, Scene
from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import bits_of
from bgmatch_dask.warps.lsst import read_lsst_warp
from bgmatch_dask.warps.simulation import load_truth, true_diffuse, true_sky

__all__ = ("make_scene",)

_BAD = bits_of(("BAD", "SAT", "CR", "EDGE", "NO_DATA", "SENSOR_EDGE", "STREAK"))
_DETECTED = bits_of(("DETECTED",))


def make_scene(tract: Path, folder: Path) -> Scene:
    """Join the warps of a simulated tract to one image per visit, and keep the truth beside."""
    if (folder / "scene.json").exists():
        return Scene(folder)
    folder.mkdir(parents=True, exist_ok=True)
    truth = load_truth(tract)
    geometry = truth.config.geometry
    box = geometry.patches.tract_box
    labels = [str(visit.visit) for visit in truth.visits]
    labels.sort(key=lambda label: label != str(truth.best_reference))
    header = _plain(geometry.wcs(box).to_header())
    rows = slice(None, None, STRIDE)
    for label in labels:
        image, detected = _joined(tract, label, box, geometry.patches)
        fits.writeto(folder / f"visit-{label}.fits", image, header, overwrite=True)
        fits.writeto(folder / f"detected-{label}.fits", detected, overwrite=True)
        sky = true_sky(truth, label, box)[rows, rows]
        np.savez(folder / f"truth-{label}.npz", sky=sky, good=np.isfinite(image[rows, rows]))
    np.save(folder / "diffuse.npy", true_diffuse(truth, box)[rows, rows])
    facts = {"visits": labels, "shape": list(box.shape)}
    (folder / "scene.json").write_text(json.dumps(facts), encoding="utf-8")
    return Scene(folder)


def _plain(header: fits.Header) -> fits.Header:
    """Return the header with the pixel size in CDELT, where Montage looks for it."""
    for axis in (1, 2):
        header[f"CDELT{axis}"] *= header.pop(f"PC{axis}_{axis}", 1.0)
    return header


def _joined(
    tract: Path,
    label: str,
    box: Box,
    patches: Any,  # noqa: ANN401
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    image = np.full(box.shape, np.nan, np.float32)
    detected = np.zeros(box.shape, np.uint8)
    for patch in range(patches.n_patches):
        path = tract / "warps" / f"warp_v{label}_p{patch}.fits"
        if not path.exists():
            continue
        warp = read_lsst_warp(path)
        inner = patches.inner_box(patch)
        part = warp.crop(inner)
        window = inner.slices_in(box)
        image[window] = np.where((part.mask & _BAD) != 0, np.nan, part.image)
        detected[window] = (part.mask & _DETECTED) != 0
    return image, detected
