"""The unit of work that stacks one patch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.coadd.layout import COADD_PLANES
from bgmatch_dask.coadd.stack import Stack, WeightedWarp
from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import CLIPPED
from bgmatch_dask.numerics.stacking import TOGETHER
from bgmatch_dask.pipeline.outlier_masks import OutlierMasks
from bgmatch_dask.pipeline.results import Method, offset_on
from bgmatch_dask.pipeline.thumbnails import BlockSums, write_thumbnail
from bgmatch_dask.pipeline.unmatched import Recipe, write_recipe
from bgmatch_dask.store import Receipt, TractStore, open_store
from bgmatch_dask.store.plane_writer import PlaneWriter
from bgmatch_dask.store.versions import run_of

__all__ = ("CoaddTask", "coadd_patch")

_HELD_PIXELS = 3 << 22
"""Pixels of all warps that are held before they are added to a coadd."""


@dataclass(frozen=True, slots=True)
class CoaddTask:
    """Stack the warps of one patch, matched and (for its picture, or to be stored) unmatched."""

    url: str
    run: str
    patch: int
    weights: tuple[tuple[str, float], ...]
    """(visit, one inverse sky variance for the warp); in the order of the visit axis."""
    reference: str
    dropped: tuple[str, ...]
    bad_bits: int
    write_unmatched: bool
    digest: str
    method: Method = "joint"
    outliers: bool = False
    """Leave out pixels where a visit shows what no other visit shows."""

    @property
    def unit(self) -> str:
        """Key of the unit."""
        return str(self.patch)


def coadd_patch(task: CoaddTask) -> Receipt:
    """Carry out a `CoaddTask`, a band of rows at a time: sums of a whole patch take gigabytes."""
    start = time.perf_counter()
    store = open_store(task.url)
    matched = _PatchCoadd.of(store, task, "matched", write=True)
    unmatched = _PatchCoadd.of(store, task, "unmatched", write=task.write_unmatched)
    coadds = (matched, unmatched)
    outer = store.spec.geometry.patches.outer_box(task.patch)
    masks = OutlierMasks.of(store, run_of(task.run)) if task.outliers else None
    for band in _bands(store, task):
        box = band.intersect(outer)
        stacks = {} if box.empty else _stack_band(store, task, box, masks)
        for coadd in coadds:
            coadd.add(band, box, stacks.get(coadd.name))
    for coadd in coadds:
        coadd.write()
    recipe = Recipe(task.weights, task.bad_bits, unmatched.n_pixels, task.write_unmatched)
    write_recipe(store, task.run, task.patch, recipe)
    write_thumbnail(store, task.run, task.patch, {c.name: c.blocks for c in coadds})
    figures = {"n_pixels": matched.n_pixels}
    return Receipt("coadd", task.unit, task.digest, time.perf_counter() - start, figures)


@dataclass(slots=True)
class _PatchCoadd:
    """One coadd of one patch, from the top: only compressed planes are held as a whole.

    Without writers only its small picture is made.
    """

    name: str
    writers: Mapping[str, PlaneWriter]
    blocks: BlockSums
    n_pixels: int = 0

    @classmethod
    def of(cls, store: TractStore, task: CoaddTask, name: str, *, write: bool) -> _PatchCoadd:
        path = f"coadd/{task.run}_{name}"
        planes = COADD_PLANES if write else ()
        writers = {p: store.patch_plane(f"{path}/{p}", task.patch) for p in planes}
        return cls(name, writers, BlockSums.empty(store.spec.geometry, task.patch))

    def add(self, band: Box, box: Box, stack: Stack | None) -> None:
        """Take a band of the plane, of which a box was stacked."""
        planes = {} if stack is None else stack.planes()
        for name, writer in self.writers.items():
            rows = planes.get(name)
            if rows is None or box != band:
                rows = np.full(band.shape, writer.fill, writer.dtype)
                if name in planes:
                    rows[box.slices_in(band)] = planes[name]
            writer.add(rows)
        if stack is not None:
            self.blocks.add(planes["image"], box)
            self.n_pixels += int(np.count_nonzero(stack.n_image))

    def write(self) -> None:
        for writer in self.writers.values():
            writer.write()


def _read_planes(
    store: TractStore, visit: str, patch: int, box: Box
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    index = store.spec.visit_index(visit)
    image, variance, mask = (
        store.read(plane, index, patch, box) for plane in ("image", "variance", "mask")
    )
    return image, variance, mask


def _matched(
    store: TractStore,
    task: CoaddTask,
    visit: str,
    box: Box,
    warp: WeightedWarp,
    masks: OutlierMasks | None,
    clipped: NDArray[np.bool_],
) -> WeightedWarp:
    """Return a warp with its offset and without its outliers, which are noted in ``clipped``."""
    image, variance = warp.image, warp.variance
    if visit != task.reference:
        offset = offset_on(store, task.run, visit, task.patch, task.method)
        image, variance = image + offset.image(box), variance + offset.variance(box)
    if masks is not None:
        # A pixel without a value is left out; the mask of the coadd tells why.
        outlier = masks.on(visit, box) & np.isfinite(image)
        clipped |= outlier & ((warp.mask & task.bad_bits) == 0)
        image = np.where(outlier, np.float32(np.nan), image)
    return replace(warp, image=image, variance=variance)


def _bands(store: TractStore, task: CoaddTask) -> list[Box]:
    """Cut the patch into rows of chunks, so that every chunk is decoded once."""
    plane = store.spec.geometry.patches.plane_box(task.patch)
    # A model of a single warp is drawn whole, whatever the box.
    rows = store.array(f"{store.spec.kind}/image").chunks[-2]
    step = rows if task.method == "joint" else plane.height
    return [Box(plane.x0, y0, plane.width, step) for y0 in range(plane.y0, plane.y1, step)]


def _stack_band(
    store: TractStore, task: CoaddTask, box: Box, masks: OutlierMasks | None
) -> dict[str, Stack]:
    stacks = {"matched": Stack.empty(box.shape), "unmatched": Stack.empty(box.shape)}
    clipped = np.zeros(box.shape, bool)
    together = min(max(_HELD_PIXELS // (box.width * box.height), 1), TOGETHER)
    for first in range(0, len(task.weights), together):
        found: dict[str, list[WeightedWarp]] = {"matched": [], "unmatched": []}
        for visit, weight in task.weights[first : first + together]:
            warp = WeightedWarp(*_read_planes(store, visit, task.patch, box), weight)
            found["unmatched"].append(warp)
            if visit not in task.dropped:
                found["matched"].append(_matched(store, task, visit, box, warp, masks, clipped))
        for name, stack in stacks.items():
            stack.add(found[name], task.bad_bits)
    np.bitwise_or(stacks["matched"].mask, CLIPPED, out=stacks["matched"].mask, where=clipped)
    return stacks
