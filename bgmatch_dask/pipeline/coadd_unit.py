"""The unit of work that stacks one patch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.offsets import rows_of
from bgmatch_dask.coadd.layout import COADD_PLANES
from bgmatch_dask.coadd.stack import BAND, TOGETHER, MeanPlanes, Shift, Stack, WeightedWarp
from bgmatch_dask.geometry import Box
from bgmatch_dask.pipeline.outlier_masks import OutlierMasks
from bgmatch_dask.pipeline.results import Method, PatchOffset, SurfaceOffset, offset_on
from bgmatch_dask.pipeline.thumbnails import BlockSums, write_thumbnail
from bgmatch_dask.pipeline.unmatched import Recipe, write_recipe
from bgmatch_dask.store import Receipt, TractStore, open_store
from bgmatch_dask.store.plane_writer import PlaneWriter
from bgmatch_dask.store.traffic import add_traffic
from bgmatch_dask.store.versions import run_of

__all__ = ("CoaddTask", "coadd_patch")

_HELD_PIXELS = 5 << 20
"""Decoded pixels of all warps that are held at a time, of each plane."""

_REQUESTS = 4
"""Requests to a server that are waited for at the same time."""

Planes = Mapping[str, NDArray[Any]]
Weights = Sequence[tuple[str, float]]


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
    """Carry out a `CoaddTask`, a chunk at a time: sums of a whole patch take gigabytes.

    The memory of a chunk of some warps, of its sums and of its mean serves for all chunks.
    """
    start = time.perf_counter()
    store = open_store(task.url)
    matched = _PatchCoadd.of(store, task, "matched", write=True)
    unmatched = _PatchCoadd.of(store, task, "unmatched", write=task.write_unmatched)
    with ThreadPoolExecutor(_REQUESTS) as pool:
        for tile, mean, plain in _means(store, task, pool):
            matched.add(tile, mean)
            unmatched.add(tile, plain)
    for coadd in (matched, unmatched):
        coadd.write()
    recipe = Recipe(task.weights, task.bad_bits, unmatched.n_pixels, task.write_unmatched)
    write_recipe(store, task.run, task.patch, recipe)
    blocks = {"matched": matched.blocks, "unmatched": unmatched.blocks}
    write_thumbnail(store, task.run, task.patch, blocks)
    figures = {"n_pixels": matched.n_pixels}
    return Receipt("coadd", task.unit, task.digest, time.perf_counter() - start, figures)


@dataclass(frozen=True, slots=True)
class _Tile:
    """One chunk of a patch."""

    place: tuple[int, int]
    """Its row and column among the chunks."""
    box: Box
    """Its tract pixels."""


@dataclass(slots=True)
class _PatchCoadd:
    """One coadd of one patch, chunk by chunk: only compressed planes are held as a whole.

    Without writers only its small picture is made.
    """

    writers: Mapping[str, PlaneWriter]
    blocks: BlockSums
    n_pixels: int = 0

    @classmethod
    def of(cls, store: TractStore, task: CoaddTask, name: str, *, write: bool) -> _PatchCoadd:
        path = f"coadd/{task.run}_{name}"
        planes = COADD_PLANES if write else ()
        writers = {p: store.patch_plane(f"{path}/{p}", task.patch) for p in planes}
        return cls(writers, BlockSums.empty(store.spec.geometry, task.patch))

    def add(self, tile: _Tile, planes: Mapping[str, NDArray[Any]]) -> None:
        for name, writer in self.writers.items():
            writer.add(tile.place, planes[name])
        self.blocks.add(planes["image"], tile.box)
        self.n_pixels += int(np.count_nonzero(np.isfinite(planes["image"])))

    def write(self) -> None:
        for writer in self.writers.values():
            writer.write()


def _means(
    store: TractStore, task: CoaddTask, pool: Executor
) -> Iterator[tuple[_Tile, Planes, Planes]]:
    """Yield the planes of the matched and of the unmatched mean of every chunk with pixels.

    Their memory serves for the next ones too.
    """
    tiles = _tiles(store, task.patch)
    shape = tiles[0].box.shape
    warps = _Warps(store, task, shape, pool)
    # A model of a single warp is drawn whole, whatever the box: then all chunks wait for it.
    regions = [[tile] for tile in tiles] if task.method == "joint" else [tiles]
    rows = BAND if len(warps.groups) == 1 else shape[0]
    plain = not task.write_unmatched
    sums = [_Sums.empty((rows, shape[1]), plain=plain) for _ in regions[0]]
    out = _Means(MeanPlanes.empty(shape, plain=plain), None if plain else MeanPlanes.empty(shape))
    for region in regions:
        for group in warps.groups:
            last = group is warps.groups[-1]
            for tile, part in zip(region, sums, strict=True):
                part.add(warps.read(group, tile.box), task.bad_bits, out if last else None)
                if last:
                    yield tile, *out.planes


def _tiles(store: TractStore, patch: int) -> list[_Tile]:
    """Return the chunks of a patch that have pixels of the tract, from the top."""
    patches = store.spec.geometry.patches
    plane, outer = patches.plane_box(patch), patches.outer_box(patch)
    height, width = store.array(f"{store.spec.kind}/image").chunks[-2:]
    boxes = (
        _Tile((row, column), Box(plane.x0 + column * width, plane.y0 + row * height, width, height))
        for row in range(plane.height // height)
        for column in range(plane.width // width)
    )
    return [tile for tile in boxes if not tile.box.intersect(outer).empty]


@dataclass(frozen=True, slots=True)
class _Means:
    """Where the means of a chunk go."""

    matched: MeanPlanes
    unmatched: MeanPlanes | None

    @property
    def planes(self) -> tuple[Planes, Planes]:
        """The planes of both; of the unmatched one the image alone unless it is stored."""
        if self.unmatched is None:
            return self.matched.by_name, {"image": self.matched.plain}
        return self.matched.by_name, self.unmatched.by_name


@dataclass(frozen=True, slots=True)
class _Sums:
    """Running sums of a chunk."""

    matched: Stack
    unmatched: Stack | None

    @classmethod
    def empty(cls, shape: tuple[int, int], *, plain: bool) -> _Sums:
        return cls(Stack.empty(shape, plain=plain), None if plain else Stack.empty(shape))

    def add(self, warps: Sequence[WeightedWarp], bad_bits: int, out: _Means | None) -> None:
        """Add warps; the last ones of a chunk come with a place for the means."""
        self.matched.add(warps, bad_bits, None if out is None else out.matched)
        if self.unmatched is not None:
            bare = [replace(w, shift=None, outliers=None, left_out=False) for w in warps]
            self.unmatched.add(bare, bad_bits, None if out is None else out.unmatched)


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """An offset that was drawn on all pixels of a patch; see `PatchOffset`."""

    plane: Box
    drawn: tuple[NDArray[np.float32], NDArray[np.float32]]

    @classmethod
    def of(cls, offset: PatchOffset, plane: Box) -> _Drawn:
        return cls(plane, (offset.image(plane), offset.variance(plane)))

    def image(self, box: Box) -> NDArray[np.float32]:
        return np.ascontiguousarray(self.drawn[0][box.slices_in(self.plane)])

    def variance(self, box: Box) -> NDArray[np.float32]:
        return np.ascontiguousarray(self.drawn[1][box.slices_in(self.plane)])


class _Warps:
    """Reads the warps of a patch by chunks, some visits at a time, into memory of its own."""

    def __init__(
        self, store: TractStore, task: CoaddTask, shape: tuple[int, int], pool: Executor
    ) -> None:
        self.store, self.task, self.pool = store, task, pool
        self.masks = OutlierMasks.of(store, run_of(task.run)) if task.outliers else None
        self._tables: dict[str, Any] = {}
        self._offsets: dict[str, PatchOffset] = {}
        most = min(max(_HELD_PIXELS // (shape[0] * shape[1]), 1), TOGETHER)
        # Twice as many without sums of the whole chunk take no more memory than with them.
        if most < len(task.weights) <= 2 * most:
            most *= 2
        if task.method == "per_warp":
            most = 1
        weights = task.weights
        self.groups = [weights[i : i + most] for i in range(0, len(weights), most)] or [()]
        held = (most, *shape)
        self._held = (np.empty(held, np.float32), np.empty(held, np.float32))
        self._masks = np.empty(held, np.int32)

    def read(self, group: Weights, box: Box) -> list[WeightedWarp]:
        """Return warps on a chunk, with what matches them; they hold until the next call."""
        self._decode(group, box)
        found = []
        for k, (visit, weight) in enumerate(group):
            planes = (self._held[0][k], self._held[1][k], self._masks[k])
            if visit in self.task.dropped:
                found.append(WeightedWarp(*planes, weight, left_out=True))
                continue
            outliers = None if self.masks is None else self.masks.within(visit, box)
            found.append(WeightedWarp(*planes, weight, self._shift(visit, box), outliers))
        return found

    def _decode(self, group: Weights, box: Box) -> None:
        """Fill the memory of warps with a chunk of each."""
        memory = (*self._held, self._masks)
        places = [
            (name, self.store.spec.visit_index(visit), plane[k])
            for k, (visit, _) in enumerate(group)
            for name, plane in zip(("image", "variance", "mask"), memory, strict=True)
        ]

        def read(name: str, index: int, out: NDArray[Any]) -> None:
            self.store.read(name, index, self.task.patch, box, out=out, tables=self._tables)

        if self.store.location.local_path is not None:
            for place in places:
                read(*place)
            return
        # Answers of a server are waited for together; what was read is of this unit all the same.
        jobs = [self.pool.submit(copy_context().run, partial(read, *place)) for place in places]
        for job, place in zip(jobs, places, strict=True):
            job.result()
            add_traffic(place[2].nbytes)

    def _shift(self, visit: str, box: Box) -> Shift | None:
        if visit == self.task.reference:
            return None
        offset = self._offset(visit)
        if isinstance(offset, SurfaceOffset):
            return rows_of(offset.offset, box)
        return offset.image(box), offset.variance(box)

    def _offset(self, visit: str) -> PatchOffset:
        task = self.task
        if visit not in self._offsets:
            offset = offset_on(self.store, task.run, visit, task.patch, task.method)
            if task.method == "per_warp":
                # The pixels of one are as many as those of a patch.
                self._offsets.clear()
                offset = _Drawn.of(offset, self.store.spec.geometry.patches.plane_box(task.patch))
            self._offsets[visit] = offset
        return self._offsets[visit]
