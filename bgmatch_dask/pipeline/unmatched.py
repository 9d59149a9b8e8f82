"""The coadd of the unmatched warps: stored by choice, otherwise computed when it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.coadd.layout import COADD_PLANES
from bgmatch_dask.coadd.stack import Stack, WeightedWarp
from bgmatch_dask.errors import StoreError
from bgmatch_dask.geometry import Box
from bgmatch_dask.store import Location, TractStore, open_store
from bgmatch_dask.store.lost import was_written

__all__ = ("Recipe", "UnmatchedCoadd", "write_recipe")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the unmatched coadd of one patch is made of."""

    weights: tuple[tuple[str, float], ...]
    """(visit, inverse sky variance of its warp), in the order in which they are added."""
    bad_bits: int
    """Pixels with these bits are left out."""
    n_pixels: int
    """Pixels that hold data."""
    stored: bool
    """Whether the planes are in the store."""


def write_recipe(store: TractStore, run: str, patch: int, recipe: Recipe) -> None:
    """Store the recipe of a patch; its last use for a version counts."""
    data = {
        "weights": recipe.weights,
        "bad_bits": recipe.bad_bits,
        "n_pixels": recipe.n_pixels,
        "stored": recipe.stored,
    }
    store.location.write_bytes(_path(run, patch), json.dumps(data).encode())


def _path(run: str, patch: int) -> str:
    return f"coadd/{run}_unmatched/{patch:05d}.json"


@dataclass(frozen=True, slots=True)
class UnmatchedCoadd:
    """The unmatched coadd of a version of a run. Small and picklable."""

    url: str
    """Absolute URL of the store."""
    run: str
    """Name of the version of the run's products."""
    tag: str
    """What tells this version from another one of the same name."""

    @classmethod
    def of(cls, location: Location, run: str) -> UnmatchedCoadd:
        """Return the unmatched coadd of a version of a run."""
        return cls(location.url, run, location.tag(f"runs/{run}/summary.json") or "")

    def recipe(self, patch: int) -> Recipe | None:
        """Return what the coadd of a patch is made of, None where there is none.

        Raises
        ------
        StoreError
            ``store-corrupt`` when it is gone or cannot be read.
        """
        store, path = open_store(self.url), _path(self.run, patch)
        try:
            found = json.loads(store.location.read_bytes(path))
            weights = tuple((str(visit), float(weight)) for visit, weight in found["weights"])
            numbers = (int(found["bad_bits"]), int(found["n_pixels"]))
            return Recipe(weights, *numbers, bool(found["stored"]))
        except StoreError as error:
            if error.code != "object-missing":
                raise
            if was_written(store.location, store.spec.kind, path):
                raise self._corrupt(path, "the object is gone") from error
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise self._corrupt(path, str(error)) from error

    def _corrupt(self, path: str, why: str) -> StoreError:
        return StoreError(
            "store-corrupt",
            f"{path} cannot be read back: {why}",
            where=self.url,
            fix="`bgmatch verify --repair STORE` makes what is damaged once more.",
        )

    @property
    def patches(self) -> tuple[int, ...]:
        """The patches that hold data."""
        every = range(open_store(self.url).spec.geometry.patches.n_patches)
        recipes = ((patch, self.recipe(patch)) for patch in every)
        return tuple(patch for patch, recipe in recipes if recipe is not None and recipe.n_pixels)

    def read(self, plane: str, patch: int, box: Box) -> NDArray[Any]:
        """Return one plane on a box; the same bytes whether it is stored or computed.

        Parameters
        ----------
        plane
            A name of `COADD_PLANES`.
        patch
            Place on the patch axis.
        box
            Tract pixels, inside the plane box of the patch.

        Raises
        ------
        StoreError
            ``store-corrupt`` when stored bytes are not those that were written, or are gone.
        """
        return self.planes((plane,), patch, box)[plane]

    def planes(self, names: tuple[str, ...], patch: int, box: Box) -> dict[str, NDArray[Any]]:
        """Return several planes on a box, of which each warp is read once; see `read`."""
        store, recipe = open_store(self.url), self.recipe(patch)
        if recipe is None:
            return {name: _empty(name, box) for name in names}
        if recipe.stored:
            group = f"coadd/{self.run}_unmatched"
            return {n: store.read_patch_plane(f"{group}/{n}", patch, box) for n in names}
        found = {name: _empty(name, box) for name in names}
        for band in _bands(store, patch, box):
            for name, plane in _mean(store, recipe, patch, band).items():
                if name in found:
                    found[name][band.slices_in(box)] = plane
        return found


def _bands(store: TractStore, patch: int, box: Box) -> Iterator[Box]:
    """Cut a box into rows of chunks, so that few sums are held and each chunk is decoded once."""
    top = store.spec.geometry.patches.plane_box(patch).y0
    step = store.array(f"{store.spec.kind}/image").chunks[-2]
    for y0 in range(top, box.y1, step):
        band = Box(box.x0, y0, box.width, step).intersect(box)
        if not band.empty:
            yield band


def _mean(store: TractStore, recipe: Recipe, patch: int, box: Box) -> dict[str, NDArray[Any]]:
    stack = Stack.empty(box.shape)
    for visit, weight in recipe.weights:
        index = store.spec.visit_index(visit)
        image, variance, mask = (
            store.read(name, index, patch, box) for name in ("image", "variance", "mask")
        )
        stack.add([WeightedWarp(image, variance, mask, weight)], recipe.bad_bits)
    return stack.planes()


def _empty(name: str, box: Box) -> NDArray[Any]:
    dtype, fill = COADD_PLANES[name]
    return np.full(box.shape, fill, dtype)
