"""The unit of the difference stage: all differences of one patch, and its outlier masks."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.differences import (
    DifferenceSettings,
    PatchDifferences,
    Piece,
    measure_patch,
)
from bgmatch_dask.background.superpixels import SuperpixelSums, from_array, to_array
from bgmatch_dask.background.visits import Visit
from bgmatch_dask.geometry import Box
from bgmatch_dask.pipeline.outlier_masks import outliers_of
from bgmatch_dask.pipeline.photometric_ratio import has_ratios, read_ratio
from bgmatch_dask.pipeline.results import write_arrays
from bgmatch_dask.store import Receipt, TractStore, open_store

__all__ = (
    "DifferenceTask",
    "StoredWarps",
    "difference_patch",
    "read_differences",
)


@dataclass(frozen=True, slots=True)
class DifferenceTask:
    """Measure hub − visit on one patch for a batch of pairs; each warp is read once."""

    url: str
    run: str
    patch: int
    pairs: tuple[tuple[str, str], ...]
    pair_digests: tuple[str, ...]
    """What each pair is measured from and how, in the order of the pairs."""
    settings: DifferenceSettings
    digest: str
    unit: str
    """Key of the unit: the patch, and the name of the batch if it is not the first."""

    @property
    def path(self) -> str:
        """Object that holds the result."""
        return f"match/{self.run}/differences/{self.name}"

    @property
    def name(self) -> str:
        """Name of the objects of the batch."""
        batch = self.unit.partition("/")[2]
        return f"{self.patch:05d}_{batch}.npz" if batch else f"{self.patch:05d}.npz"


@dataclass(frozen=True, slots=True)
class StoredWarps:
    """The warps of one patch in the store; a `WarpReader`."""

    store: TractStore
    patch: int
    box: Box

    tables: dict[str, Any] = field(default_factory=dict)
    """Indexes of the shards that are read, of a server their bytes."""
    memory: dict[str, NDArray[Any]] = field(default_factory=dict)
    """A chunk of each plane, for one after the other."""

    def pieces(self, visit: Visit) -> Iterator[Piece]:
        """Yield the chunks of a visit that touch the box."""
        index = self.store.spec.visit_index(str(visit))
        # A server is asked once for each plane, not for each chunk: its answers take their time.
        names = [self.store.fetch(p, index, self.patch, self.tables) for p in ("image", "mask")]
        with_ratio = has_ratios(self.store)
        for chunk in self._chunks():
            image: NDArray[np.float32] = self._chunk("image", index, chunk)
            ratio = read_ratio(self.store, index, self.patch, chunk) if with_ratio else None
            if ratio is not None:
                np.multiply(image, ratio, out=image)
            part = chunk.intersect(self.box)
            first = (part.y0 - chunk.y0, part.x0 - chunk.x0)
            window = part.slices_in(self.box)
            yield Piece(image, self._chunk("mask", index, chunk), first, window)
        for name in names:
            self.tables.pop(name, None)

    def _chunks(self) -> Iterator[Box]:
        plane = self.store.spec.geometry.patches.plane_box(self.patch)
        height, width = self.store.array(f"{self.store.spec.kind}/image").chunks[-2:]
        for y in range(plane.y0, plane.y1, height):
            for x in range(plane.x0, plane.x1, width):
                chunk = Box(x, y, min(width, plane.x1 - x), min(height, plane.y1 - y))
                if not chunk.intersect(self.box).empty:
                    yield chunk

    def _chunk(self, plane: str, index: int, box: Box) -> NDArray[Any]:
        found = self.memory.get(plane)
        if found is None or found.shape != box.shape:
            dtype = self.store.array(f"{self.store.spec.kind}/{plane}").dtype
            found = self.memory[plane] = np.empty(box.shape, dtype)
        return self.store.read(plane, index, self.patch, box, out=found, tables=self.tables)

    def image(self, visit: Visit) -> NDArray[np.float32]:
        """Return the image, in units in which backgrounds are smooth."""
        index = self.store.spec.visit_index(str(visit))
        pixels: NDArray[np.float32] = self.store.read("image", index, self.patch, self.box)
        ratio = read_ratio(self.store, index, self.patch, self.box)
        return pixels if ratio is None else np.multiply(pixels, ratio, out=pixels)

    def mask(self, visit: Visit) -> NDArray[np.int32]:
        """Return the mask."""
        index = self.store.spec.visit_index(str(visit))
        return self.store.read("mask", index, self.patch, self.box)


def difference_patch(task: DifferenceTask) -> Receipt:
    """Carry out a `DifferenceTask`."""
    start = time.perf_counter()
    store = open_store(task.url)
    box = store.spec.geometry.patches.inner_box(task.patch)
    found = measure_patch(
        task.pairs, StoredWarps(store, task.patch, box), box, store.spec.grid, task.settings
    )
    stacked = np.stack([to_array(found.sums[pair]) for pair in task.pairs])
    write_arrays(store, task.path, {"sums": stacked})
    _write_outliers(store, task, found)
    rows = zip(task.pairs, task.pair_digests, strict=True)
    figures = {
        "pairs": [[*pair, digest] for pair, digest in rows],
        "outliers": sorted(str(visit) for visit in found.outliers),
    }
    return Receipt("difference", task.unit, task.digest, time.perf_counter() - start, figures)


def read_differences(
    store: TractStore, task: DifferenceTask
) -> Mapping[tuple[str, str], SuperpixelSums]:
    """Read back what `difference_patch` wrote, by (hub, visit)."""
    data = store.location.read_bytes(task.path)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        sums = arrays["sums"]
    return {pair: from_array(part) for pair, part in zip(task.pairs, sums, strict=True)}


def _write_outliers(store: TractStore, task: DifferenceTask, found: PatchDifferences) -> None:
    """Write the outlier cells of all visits of a patch: one small compressed object."""
    shape = (len(found.outliers), len(found.y_edges) - 1, len(found.x_edges) - 1)
    cells = np.stack(list(found.outliers.values())) if found.outliers else np.zeros(shape, bool)
    arrays: dict[str, NDArray[Any]] = {
        "visit": np.array([store.spec.visit_index(str(v)) for v in found.outliers], np.int64),
        "cells": np.packbits(cells, axis=-1),
        "x_edges": found.x_edges.astype(np.int32),
        "y_edges": found.y_edges.astype(np.int32),
    }
    write_arrays(store, f"{outliers_of(task.run)}/{task.name}", arrays, compressed=True)
