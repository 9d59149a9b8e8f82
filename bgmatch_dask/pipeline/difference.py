"""The unit of the difference stage: all differences of one patch, and its outlier masks."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.differences import DifferenceSettings, PatchDifferences, measure_patch
from bgmatch_dask.background.superpixels import SuperpixelSums, from_array, to_array
from bgmatch_dask.background.visits import Visit
from bgmatch_dask.geometry import Box
from bgmatch_dask.pipeline.outlier_masks import outliers_of
from bgmatch_dask.pipeline.photometric_ratio import read_ratio
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

    def bands(self) -> Sequence[slice]:
        """Return the rows of each row of chunks, so that every chunk is decoded once."""
        plane = self.store.spec.geometry.patches.plane_box(self.patch)
        step = self.store.array(f"{self.store.spec.kind}/image").chunks[-2]
        edges = [y for y in range(plane.y0, plane.y1, step) if self.box.y0 < y < self.box.y1]
        places = (y - self.box.y0 for y in (self.box.y0, *edges, self.box.y1))
        return [slice(*pair) for pair in pairwise(places)]

    def image(
        self, visit: Visit, rows: slice | None = None, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return the image, in units in which backgrounds are smooth."""
        box = self._box(rows)
        pixels: NDArray[np.float32] = self._read("image", visit, rows, out)
        index = self.store.spec.visit_index(str(visit))
        ratio = read_ratio(self.store, index, self.patch, box)
        return pixels if ratio is None else np.multiply(pixels, ratio, out=pixels)

    def mask(self, visit: Visit, rows: slice | None = None) -> NDArray[np.int32]:
        """Return the mask."""
        return self._read("mask", visit, rows)

    def _box(self, rows: slice | None) -> Box:
        if rows is None:
            return self.box
        return Box(self.box.x0, self.box.y0 + rows.start, self.box.width, rows.stop - rows.start)

    def _read(
        self, plane: str, visit: Visit, rows: slice | None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        index, box = self.store.spec.visit_index(str(visit)), self._box(rows)
        # A server is asked once, not for each row of chunks: its answers take their time.
        name = self.store.fetch(plane, index, self.patch, self.tables)
        values = self.store.read(plane, index, self.patch, box, out=out, tables=self.tables)
        if box.y1 == self.box.y1:
            self.tables.pop(name, None)
        return values


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
