"""The units of work that go through single warps.

Each reads what it needs once, writes what it alone owns, and returns a receipt of a few hundred
bytes. Tasks are small frozen messages: places and numbers, no pixels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.superpixels import (
    SuperpixelSums,
    measure_visit,
    to_array,
)
from bgmatch_dask.coadd.stack import SkyWeight
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.pixel_planes import blank_infinite, count_finite
from bgmatch_dask.numerics.quantisation import power_step, rounded_to_bits, rounded_to_step
from bgmatch_dask.pipeline.photometric_ratio import write_ratio
from bgmatch_dask.pipeline.results import Method, offset_on
from bgmatch_dask.store import Receipt, TractStore, open_store
from bgmatch_dask.store.traffic import Written, add_traffic
from bgmatch_dask.warps.catalogue import InputFile
from bgmatch_dask.warps.profile import Profile
from bgmatch_dask.warps.source import read_unit
from bgmatch_dask.warps.warp import Warp

__all__ = (
    "IngestTask",
    "MatchTask",
    "ingest_unit",
    "match_unit",
)


@dataclass(frozen=True, slots=True)
class Clipping:
    """How pixels are selected and clipped."""

    bad_bits: int
    """Mask bits whose pixels are left out."""
    n_sigma: float
    """Threshold in sigma."""
    n_iter: int
    """Iterations."""


@dataclass(frozen=True, slots=True)
class IngestTask:
    """Read one visit on one patch, store its planes and its superpixel sums."""

    url: str
    visit: str
    patch: int
    files: tuple[InputFile, ...]
    profile: Profile
    max_pixels: int
    clipping: Clipping
    digest: str
    ratio: str | None = None
    noise_step: float | None = None
    """Share of the sky noise to which stored pixels are rounded."""

    @property
    def unit(self) -> str:
        """Key of the unit."""
        return f"{self.visit}/{self.patch}"


def ingest_unit(task: IngestTask) -> Receipt:
    """Carry out an `IngestTask`; inputs that cannot be used come back as rejections."""
    start = time.perf_counter()
    store = open_store(task.url)
    geometry = store.spec.geometry
    warp, rejected = read_unit(
        task.files,
        task.profile,
        geometry,
        task.patch,
        max_pixels=task.max_pixels,
        ratio=task.ratio,
    )
    add_traffic(sum(file.size for file in task.files))
    figures: dict[str, Any] = {"n_valid": 0}
    if warp is not None:
        weight = SkyWeight.measure(warp.variance, warp.mask, task.clipping.bad_bits)
        if task.noise_step is not None:
            warp = _on_steps(warp, weight, task.noise_step)
        _write_warp(store, task, warp)
        write_ratio(store, store.spec.visit_index(task.visit), task.patch, warp)
        if warp.ratio is not None:
            # Backgrounds are smooth in these units, and all sums are of backgrounds.
            warp = replace(warp, image=warp.image * warp.ratio)
        sums = _measure(store, task, warp)
        figures = {
            "n_valid": count_finite(warp.image),
            "sky_variance": weight.variance,
            "n_good": float(sums.n_good.sum()),
        }
    seconds = time.perf_counter() - start
    inputs = _as_read(task.files, warp)
    return Receipt("ingest", task.unit, task.digest, seconds, figures, rejected, inputs)


def _as_read(files: tuple[InputFile, ...], warp: Warp | None) -> tuple[Written, ...]:
    """Return the file with its checksum, if that was taken while it was read."""
    if warp is None or not warp.checksum or len(files) != 1:
        return ()
    return (Written(files[0].path, files[0].size, warp.checksum),)


def _on_steps(warp: Warp, sky: SkyWeight, share: float) -> Warp:
    """Return the warp on steps of a share of its sky noise; its variance tells of them."""
    step = power_step(sky.variance**0.5, share)
    if not step:
        return warp
    variance = warp.variance + np.float32(step**2 / 12)
    return replace(
        warp,
        image=rounded_to_step(warp.image, step),
        variance=rounded_to_bits(variance, share**2),
    )


def _write_warp(store: TractStore, task: IngestTask, warp: Warp) -> None:
    visit = store.spec.visit_index(task.visit)
    # Inf in the variance means no data, which is NaN in the store as it is in the image.
    blank_infinite(warp.variance)
    for name, values in (("image", warp.image), ("variance", warp.variance), ("mask", warp.mask)):
        store.write_plane(name, visit, task.patch, values, box=warp.box)


def _measure(store: TractStore, task: IngestTask, warp: Warp) -> SuperpixelSums:
    visit = store.spec.visit_index(task.visit)
    inner = store.spec.geometry.patches.inner_box(task.patch)
    image, mask = _on_box(warp, inner)
    clip = task.clipping
    sums = measure_visit(
        image,
        mask,
        inner,
        store.spec.grid,
        clip.bad_bits,
        n_sigma=clip.n_sigma,
        n_iter=clip.n_iter,
    )
    store.write_unit_sums(visit, task.patch, to_array(sums))
    return sums


def _on_box(warp: Warp, box: Box) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    if warp.box.contains(box):
        part = warp.crop(box)
        return part.image, part.mask
    image = np.full(box.shape, np.nan, np.float32)
    mask = np.zeros(box.shape, np.int32)
    common = warp.box.intersect(box)
    if not common.empty:
        image[common.slices_in(box)] = warp.image[common.slices_in(warp.box)]
        mask[common.slices_in(box)] = warp.mask[common.slices_in(warp.box)]
    return image, mask


@dataclass(frozen=True, slots=True)
class MatchTask:
    """Write one matched warp; NaN where the unit could not be matched."""

    url: str
    run: str
    visit: str
    patch: int
    reference: str
    digest: str
    method: Method = "joint"
    matched: bool = True

    @property
    def unit(self) -> str:
        """Key of the unit."""
        return f"{self.visit}/{self.patch}"


def match_unit(task: MatchTask) -> Receipt:
    """Carry out a `MatchTask`: image + offset, variance + offset variance."""
    start = time.perf_counter()
    store = open_store(task.url)
    visit = store.spec.visit_index(task.visit)
    box = store.spec.geometry.patches.plane_box(task.patch)
    kind = f"match/{task.run}/warps"
    image = store.read("image", visit, task.patch, box)
    variance = store.read("variance", visit, task.patch, box)
    if not task.matched:
        # A plane of an earlier run of this name must not outlive its match.
        image, variance = np.full_like(image, np.nan), np.full_like(variance, np.nan)
    elif task.visit != task.reference:
        offset = offset_on(store, task.run, task.visit, task.patch, task.method)
        image = image + offset.image(box)
        variance = variance + offset.variance(box)
    store.write_plane("image", visit, task.patch, image, kind=kind)
    store.write_plane("variance", visit, task.patch, variance, kind=kind)
    store.write_plane(
        "mask", visit, task.patch, store.read("mask", visit, task.patch, box), kind=kind
    )
    return Receipt("match", task.unit, task.digest, time.perf_counter() - start)
