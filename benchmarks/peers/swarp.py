"""SWarp: a mesh per image, subtracted, and a clipped coadd."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from benchmarks.peers.scene import STRIDE, Scene, save_corrections

__all__ = ("prepare_swarp", "run_swarp", "swarp_corrections")


def prepare_swarp(folder: str) -> None:
    """Write weight maps, which SWarp needs in place of NaN."""
    scene = Scene(Path(folder))
    for visit in scene.visits:
        image = scene.image(visit)
        good = np.isfinite(image)
        header = scene.header(visit)
        path = scene.folder / f"swarp-{visit}.fits"
        fits.writeto(path, np.where(good, image, 0).astype(np.float32), header, overwrite=True)
        weight = scene.folder / f"swarp-{visit}.weight.fits"
        fits.writeto(weight, good.astype(np.float32), header, overwrite=True)


def run_swarp(folder: str, out: str) -> None:
    """Run SWarp with its default mesh of 128 px; GAIN is set, or its clipping does nothing."""
    scene = Scene(Path(folder))
    program = shutil.which("SWarp") or shutil.which("swarp")
    if program is None:
        raise FileNotFoundError("there is no program SWarp")
    work = Path(out).with_suffix(".swarp")
    work.mkdir(exist_ok=True)
    options = {
        "COMBINE_TYPE": "CLIPPED",
        "WEIGHT_TYPE": "MAP_WEIGHT",
        "SUBTRACT_BACK": "Y",
        "BACK_SIZE": "128",
        "GAIN_DEFAULT": "1.0",
        "NTHREADS": "2",
        "WRITE_XML": "N",
        "VERBOSE_TYPE": "QUIET",
        "IMAGEOUT_NAME": "coadd.fits",
        "WEIGHTOUT_NAME": "coadd.weight.fits",
    }
    _grid(scene, work / "coadd.head")
    command = [program, *(str(scene.folder / f"swarp-{v}.fits") for v in scene.visits)]
    for name, value in options.items():
        command += [f"-{name}", value]
    subprocess.run(command, cwd=work, check=True, capture_output=True, env=os.environ)
    shutil.rmtree(work)


def swarp_corrections(folder: str, out: str) -> None:
    """Write what SWarp subtracts from each image: the "coadd" of each alone, less the image."""
    scene = Scene(Path(folder))
    program = shutil.which("SWarp") or "swarp"
    work = Path(out).with_suffix(".swarp")
    work.mkdir(exist_ok=True)
    corrections: dict[str, NDArray[Any]] = {}
    options = "-COMBINE_TYPE AVERAGE -WEIGHT_TYPE MAP_WEIGHT -SUBTRACT_BACK Y -BACK_SIZE 128"
    options += " -WRITE_XML N -VERBOSE_TYPE QUIET -IMAGEOUT_NAME one.fits"
    _grid(scene, work / "one.head")
    for visit in scene.visits:
        source = str(scene.folder / f"swarp-{visit}.fits")
        command = [program, source, *options.split()]
        subprocess.run(command, cwd=work, check=True, capture_output=True)
        after = np.asarray(fits.getdata(work / "one.fits"), np.float64)
        corrections[visit] = (after - scene.image(visit))[::STRIDE, ::STRIDE]
    shutil.rmtree(work)
    save_corrections(out, corrections)


def _grid(scene: Scene, path: Path) -> None:
    """Write the header that fixes the output to the grid of the inputs."""
    header = scene.header(scene.visits[0])
    cards = [card for card in header.cards if card.keyword not in {"SIMPLE", "BITPIX", "EXTEND"}]
    text = "\n".join(str(card).rstrip() for card in cards)
    path.write_text(f"{text}\nEND\n", encoding="ascii")
