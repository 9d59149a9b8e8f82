"""Outlier masks of the differences: where a visit shows what no other visit shows."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.geometry import Box
from bgmatch_dask.store import TractStore, open_store

__all__ = ("OutlierMasks", "outlier_mask", "outliers_of")

_DIGITS = 5
"""Digits of the patch in the name of an object."""

Bools = NDArray[np.bool_]


def outliers_of(run: str) -> str:
    """Return where the outlier masks of a run lie: an object per patch and batch of pairs."""
    return f"match/{run}/outliers"


@dataclass(frozen=True, slots=True)
class OutlierMasks:
    """The outlier masks of a run."""

    store: TractStore
    """The open store."""
    paths: Mapping[int, tuple[tuple[str, str], ...]]
    """(object, what tells it from one of before) by patch."""

    @classmethod
    def of(cls, store: TractStore, run: str) -> OutlierMasks:
        """Return the masks of a run; of one that measured no differences there are none."""
        paths: dict[int, tuple[tuple[str, str], ...]] = {}
        for path in store.location.list(outliers_of(run)):
            patch = int(path.rsplit("/", 1)[1][:_DIGITS])
            tag = store.location.tag(path) or ""
            paths[patch] = (*paths.get(patch, ()), (path, tag))
        return cls(store, paths)

    def on(self, visit: str, box: Box) -> Bools:
        """Return the mask of a visit on a box of tract pixels; False where nothing was measured."""
        found = self.within(visit, box)
        return np.zeros(box.shape, bool) if found is None else found

    def within(self, visit: str, box: Box) -> Bools | None:
        """Return the mask of a visit on a box, None where no pixel is masked."""
        mask: Bools | None = None
        patches = self.store.spec.geometry.patches
        index = self.store.spec.visit_index(visit)
        for patch, objects in self.paths.items():
            inner = patches.inner_box(patch)
            common = inner.intersect(box)
            if common.empty:
                continue
            for path, tag in objects:
                found = _load(self.store.location.url, path, tag)
                pixels = found.pixels(index, common.slices_in(inner))
                if pixels is not None:
                    mask = np.zeros(box.shape, bool) if mask is None else mask
                    mask[common.slices_in(box)] |= pixels
        return mask


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """What one object holds."""

    cells: Mapping[int, Bools]
    widths: NDArray[np.int64]
    heights: NDArray[np.int64]

    def pixels(self, index: int, window: tuple[slice, slice]) -> Bools | None:
        """Return the pixels of a part of the inner box, None where none is masked."""
        if index not in self.cells:
            return None
        rows, columns = (
            np.repeat(np.arange(len(sizes)), sizes)[part]
            for sizes, part in zip((self.heights, self.widths), window, strict=True)
        )
        part = self.cells[index][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if not part.any():
            return None
        return self.cells[index][rows[:, np.newaxis], columns]


@lru_cache(maxsize=64)
def _load(url: str, path: str, tag: str) -> _Cells:
    del tag
    data = open_store(url).location.read_bytes(path)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        widths, heights = np.diff(arrays["x_edges"]), np.diff(arrays["y_edges"])
        cells = np.unpackbits(arrays["cells"], axis=-1, count=len(widths)).view(bool)
        visits = arrays["visit"].tolist()
    return _Cells(dict(zip(visits, cells, strict=True)), widths, heights)


def outlier_mask(store: TractStore, run: str, visit: str, box: Box) -> Bools:
    """Return where a visit shows what no other visit shows: trails, transients, ghosts.

    Parameters
    ----------
    store, run
        The store and the run in it.
    visit
        Label of the visit.
    box
        Tract pixels.

    Returns
    -------
    ndarray of bool
        Shape of the box; False where nothing was differenced.
    """
    return OutlierMasks.of(store, run).on(visit, box)
