"""What the driver stores between the stages of units: sums, offsets, the summary."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.offsets import at_superpixels, render, render_variance
from bgmatch_dask.background.solution import Offset, Solution
from bgmatch_dask.background.superpixels import SuperpixelSums
from bgmatch_dask.background.visits import Visit
from bgmatch_dask.errors import StoreError
from bgmatch_dask.geometry import Box
from bgmatch_dask.pipeline.photometric_ratio import undo_ratio
from bgmatch_dask.pipeline.warp_offsets import load_warp_offset
from bgmatch_dask.store import Location, TractStore, open_store
from bgmatch_dask.store.commit import load_commit
from bgmatch_dask.store.layout import write_superpixel_array
from bgmatch_dask.store.location import faults

__all__ = (
    "Method",
    "PatchOffset",
    "SurfaceOffset",
    "load_offset",
    "load_summary",
    "offset_on",
    "offset_path",
    "save_solution",
    "save_summary",
    "save_visit_sums",
    "write_arrays",
)

_REAL = ("float64", np.nan)

Method: TypeAlias = Literal["joint", "per_warp"]
"""How the offsets of a run were found."""


class PatchOffset(Protocol):
    """The offset of one visit on one patch, however it was found."""

    def image(self, box: Box) -> NDArray[np.float32]:
        """Return what is added to the image on a box of tract pixels [image unit]."""
        ...

    def variance(self, box: Box) -> NDArray[np.float32]:
        """Return what is added to the variance on a box [image unit squared]."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceOffset:
    """A tract-wide offset; see `PatchOffset`."""

    offset: Offset
    """The offset of the visit over the tract."""

    def image(self, box: Box) -> NDArray[np.float32]:
        """Return the rendered offset."""
        return render(self.offset, box)

    def variance(self, box: Box) -> NDArray[np.float32]:
        """Return the rendered variance of the offset."""
        return render_variance(self.offset, box)


def save_visit_sums(store: TractStore, sums: Mapping[Visit, SuperpixelSums]) -> None:
    """Store mean, count and variance of every visit on the tract-wide superpixel grid."""
    path = f"superpixels/{store.spec.kind}"
    with faults(store.location.url, path, "store-write"):
        group = store.group(path)
        places = _places(store, sums)
        for name in ("mean", "count", "variance"):
            planes = ((index, getattr(sums[visit], name)) for index, visit in places)
            write_superpixel_array(group, name, _REAL, planes, store.spec)


def _places(store: TractStore, visits: Iterable[Visit]) -> list[tuple[int, Visit]]:
    """Return visits with their places on the visit axis, in its order."""
    return sorted((store.spec.visit_index(str(visit)), visit) for visit in visits)


def save_solution(store: TractStore, run: str, solution: Solution) -> None:
    """Store the offsets: nodes for rendering, and maps on the superpixel grid for looking at."""
    with faults(store.location.url, f"match/{run}", "store-write"):
        group = store.group(f"match/{run}")
        places = _places(store, solution.offsets)
        maps: tuple[tuple[str, tuple[str, float], Callable[[Offset], NDArray[Any]]], ...] = (
            ("offset", _REAL, at_superpixels),
            ("offset_variance", _REAL, lambda offset: offset.variance),
            ("flags", ("uint8", 0), lambda offset: offset.flags),
        )
        for name, kind, plane_of in maps:
            planes = ((index, plane_of(solution.offsets[visit])) for index, visit in places)
            write_superpixel_array(group, name, kind, planes, store.spec)
        for index, visit in places:
            offset = solution.offsets[visit]
            arrays: dict[str, NDArray[Any]] = {
                "pitch": np.array(offset.pitch, np.int64),
                "bin_size": np.array(store.spec.bin_size, np.int64),
                "nodes": offset.nodes,
                "variance": offset.variance,
                "flags": offset.flags,
            }
            write_arrays(store, offset_path(run, index), arrays)


def load_offset(store: TractStore, run: str, visit: str) -> Offset:
    """Return the offset of a visit.

    Raises
    ------
    StoreError
        ``offset-missing`` when the run has none: it is the reference, or nothing was solved.
    """
    path = offset_path(run, store.spec.visit_index(visit))
    # The modification tag is in the key, so that a worker never serves a solution of before.
    tag = store.location.tag(path)
    if tag is None:
        raise StoreError(
            "offset-missing",
            f"Run {run!r} has no offset for visit {visit}",
            where=store.location.url,
            fix="The reference has none; run the job for the others.",
        )
    return _load(store.location.url, path, visit, tag)


@lru_cache(maxsize=64)
def _load(url: str, path: str, visit: str, tag: str) -> Offset:
    del tag
    store = open_store(url)
    with np.load(io.BytesIO(store.location.read_bytes(path)), allow_pickle=False) as arrays:
        # The store may have other superpixels by now than this version of the offsets.
        bin_size = int(arrays["bin_size"]) if "bin_size" in arrays else store.spec.bin_size
        return Offset(
            visit=visit,
            grid=replace(store.spec, bin_size=bin_size).grid,
            pitch=int(arrays["pitch"]),
            nodes=arrays["nodes"],
            variance=arrays["variance"],
            flags=arrays["flags"],
        )


def offset_on(
    store: TractStore, run: str, visit: str, patch: int, method: Method = "joint"
) -> PatchOffset:
    """Return the offset of a visit on a patch.

    Parameters
    ----------
    store, run
        The store and the run in it.
    visit, patch
        The unit; not one of the reference, which has no offset.
    method
        How the offsets of the run were found.

    Raises
    ------
    StoreError
        ``offset-missing`` when there is none: the unit is not matched.
    """
    index = store.spec.visit_index(visit)
    if method == "joint":
        surface = SurfaceOffset(load_offset(store, run, visit))
        return undo_ratio(surface, store, index, patch)
    found = load_warp_offset(store, run, visit, patch)
    if found is None:
        raise StoreError(
            "offset-missing",
            f"Run {run!r} has no offset for visit {visit} on patch {patch}",
            where=store.location.url,
            fix="The summary tells why a warp was not matched; the reference has no offset.",
        )
    return undo_ratio(found, store, index, patch)


def write_arrays(
    store: TractStore, path: str, arrays: Mapping[str, NDArray[Any]], *, compressed: bool = False
) -> None:
    """Write arrays as one object; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    # A zip carries a CRC of each member, and numpy dates them all 1980: same arrays, same bytes.
    save = np.savez_compressed if compressed else np.savez
    save(buffer, allow_pickle=False, **arrays)
    store.location.write_bytes(path, buffer.getvalue())


def offset_path(run: str, index: int) -> str:
    """Return the object that holds the offset of the visit at a place of the visit axis."""
    return f"match/{run}/offsets/{index:06d}.npz"


def save_summary(location: Location, run: str, summary: Mapping[str, Any]) -> None:
    """Store the summary of a finished version; numbers that are not finite become null."""
    location.write_json(f"runs/{run}/summary.json", plain_json(summary))


def load_summary(location: Location, run: str) -> dict[str, Any]:
    """Return the summary of a finished run.

    Raises
    ------
    StoreError
        ``run-missing`` when there is none, ``commit-corrupt`` when its mark or the summary is
        not what was written.
    """
    load_commit(location, run)
    summary: dict[str, Any] = location.read_json(f"runs/{run}/summary.json")
    return summary


def plain_json(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [plain_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
