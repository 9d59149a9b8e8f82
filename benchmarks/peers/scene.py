"""The pixels that all programs are given, and the truth that they are held against."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import bits_of
from bgmatch_dask.warps.lsst import read_lsst_warp
from bgmatch_dask.warps.simulation import load_truth, true_diffuse, true_sky

__all__ = ("STRIDE", "Scene", "make_scene", "save_corrections")

STRIDE = 4
"""Corrections are compared on every fourth pixel of every fourth row."""

_BAD = bits_of(("BAD", "SAT", "CR", "EDGE", "NO_DATA", "SENSOR_EDGE", "STREAK"))
_DETECTED = bits_of(("DETECTED",))


@dataclass(frozen=True)
class Scene:
    """One FITS image per visit over the whole tract, with its masks."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Labels of the visits and shape of the tract."""
        facts: dict[str, Any] = json.loads((self.folder / "scene.json").read_text("utf-8"))
        return facts

    @property
    def visits(self) -> list[str]:
        """Labels, the best reference first."""
        return list(self.facts["visits"])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.facts["shape"]
        return height, width

    def path(self, visit: str) -> Path:
        """Return the image of a visit: float32, NaN without data or where bad."""
        return self.folder / f"visit-{visit}.fits"

    def image(self, visit: str) -> NDArray[np.float32]:
        """Return the pixels of a visit."""
        return np.asarray(fits.getdata(self.path(visit)), np.float32)

    def header(self, visit: str) -> fits.Header:
        """Return the header of a visit."""
        return fits.getheader(self.path(visit))

    def detected(self, visit: str) -> NDArray[np.bool_]:
        """Return which pixels hold detected sources."""
        found: NDArray[np.bool_] = fits.getdata(self.folder / f"detected-{visit}.fits") != 0
        return found


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


def save_corrections(folder: str, corrections: dict[str, NDArray[Any]]) -> None:
    """Write what a program adds to each visit, on the pixels of `STRIDE`; scalars are constants."""
    arrays = {visit: np.asarray(values, np.float64) for visit, values in corrections.items()}
    np.savez(folder, allow_pickle=False, **arrays)
