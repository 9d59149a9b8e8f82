"""A tract as one lazy xarray dataset; matched warps are computed block by block when read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from astropy.io.fits import Header
from numpy.typing import NDArray

from bgmatch_dask.background.offsets import render_flags
from bgmatch_dask.background.solution import Flag, Offset
from bgmatch_dask.coadd.layout import COADD_PLANES
from bgmatch_dask.errors import ConfigError, StoreError
from bgmatch_dask.geometry import Box
from bgmatch_dask.pipeline.results import (
    Method,
    PatchOffset,
    load_offset,
    load_summary,
    offset_on,
    offset_path,
)
from bgmatch_dask.pipeline.unmatched import UnmatchedCoadd
from bgmatch_dask.store import Location, TractSpec, TractStore, open_store
from bgmatch_dask.store.commit import is_committed
from bgmatch_dask.store.layout import PLANES
from bgmatch_dask.store.versions import current_version
from bgmatch_dask.store.visits import read_visits
from bgmatch_dask.warps.visit_facts import FACTS

__all__ = ("MatchedWarps", "Offsets", "open_offsets", "open_tract")

Variable = tuple[tuple[str, ...], da.Array, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class MatchedWarps:
    """The matched warps of a run, computed when they are read. Small and picklable."""

    url: str
    """Absolute URL of the store."""
    run: str
    """Name of the version of the run's products; see `bgmatch_dask.store.versions`."""
    reference: str
    """Visit whose offset is zero by definition."""
    tag: str
    """What tells this solution from another one of the same run."""
    method: Method = "joint"
    """How the offsets were found."""

    @classmethod
    def of(cls, location: Location, run: str) -> MatchedWarps:
        """Return the matched warps of a finished run, or of a version of it.

        Raises
        ------
        StoreError
            ``run-missing`` when the run is not finished.
        """
        version = current_version(location, run)
        summary = load_summary(location, version)
        tag = location.tag(f"runs/{version}/summary.json") or ""
        found = summary["config"].get("match", {}).get("method")
        # One reference is the joint solution with one hub: its offsets are stored alike.
        method: Method = "per_warp" if found == "per_warp" else "joint"
        return cls(location.url, version, str(summary["reference"]["visit"]), tag, method)

    def read(
        self, plane: Literal["image", "variance"], visit: int, patch: int, box: Box
    ) -> NDArray[np.float32]:
        """Return image + offset, or variance + variance of the offset.

        Parameters
        ----------
        plane
            Which of the two.
        visit, patch
            Places on the visit and patch axes.
        box
            Tract pixels, inside the plane box of the patch.

        Returns
        -------
        ndarray of float32
            Shape of ``box``; the same bytes as a matched warp that the run writes. NaN where
            there is no data, and for a unit that the run did not match.
        """
        store = open_store(self.url)
        label = store.spec.visits[visit]
        values: NDArray[np.float32] = store.read(plane, visit, patch, box)
        if label == self.reference:
            return values
        offset = self.offset(label, patch)
        if offset is None:
            return np.full(box.shape, np.nan, np.float32)
        return values + (offset.image(box) if plane == "image" else offset.variance(box))

    def flags(self, visit: int, box: Box) -> NDArray[np.uint8]:
        """Return the `Flag` bits of the offset on a box; 0 for the reference and the unmatched."""
        store = open_store(self.url)
        label = store.spec.visits[visit]
        if label == self.reference or not self.knows(label, 0):
            return np.zeros(box.shape, np.uint8)
        return render_flags(load_offset(store, self.run, label), box)

    def knows(self, visit: str, patch: int) -> bool:
        """Whether there is a matched warp of a unit that has data."""
        return visit == self.reference or self.offset(visit, patch) is not None

    def offset(self, visit: str, patch: int) -> PatchOffset | None:
        """Return the offset of a unit; None for the reference and for what was not matched."""
        try:
            return offset_on(open_store(self.url), self.run, visit, patch, self.method)
        except StoreError as error:
            if error.code != "offset-missing":
                raise
            return None


class Offsets(Mapping[str, Offset]):
    """The offsets of a run by visit, read when asked for; the reference has no entry.

    Parameters
    ----------
    matched
        The matched warps of a run whose offsets are surfaces over the tract.
    """

    def __init__(self, matched: MatchedWarps) -> None:
        self.matched = matched
        self._visits = _with_offset(open_store(matched.url), matched)

    def __getitem__(self, visit: str) -> Offset:
        """Return the offset of a visit; ``KeyError`` for the reference and the unknown."""
        if visit not in self._visits:
            raise KeyError(visit)
        return load_offset(open_store(self.matched.url), self.matched.run, visit)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the visits, in the order of the visit axis."""
        return iter(self._visits)

    def __len__(self) -> int:
        """Return the number of visits with an offset."""
        return len(self._visits)


def _with_offset(store: TractStore, matched: MatchedWarps) -> tuple[str, ...]:
    return tuple(
        visit
        for index, visit in enumerate(store.spec.visits)
        if visit != matched.reference and store.location.exists(offset_path(matched.run, index))
    )


def open_offsets(url: str, run: str = "main") -> Offsets:
    """Return the mapping visit → offset of a finished run, without an entry for the reference.

    Render an offset with `bgmatch_dask.background.offsets`: ``render`` on a box of tract pixels,
    ``on_wcs`` on the pixels of any image.

    Raises
    ------
    StoreError
        ``store-missing``, or ``run-missing`` when the run is not finished.
    ConfigError
        ``offsets-per-warp`` when each warp was matched alone: there are no surfaces.
    """
    matched = MatchedWarps.of(Location.of(url), run)
    if matched.method != "joint":
        raise ConfigError(
            "offsets-per-warp",
            f"Run {run!r} matched each warp alone: its offsets are not surfaces over the tract",
            where=matched.url,
            fix="Read `matched` of open_tract, or export the product background.",
        )
    return Offsets(matched)


def open_tract(url: str, run: str = "main") -> xr.Dataset:
    """Open a tract store as a lazy dataset with one dask block per warp.

    Parameters
    ----------
    url
        Path or URL of the store.
    run
        Name of the run whose offsets, matched warps and coadds are shown: the version in force,
        or one that is named (``main@2``; ``main@1`` is the first).

    Returns
    -------
    xarray.Dataset
        ``image``, ``variance``, ``mask`` (visit, patch, y, x) always. When the run is finished:
        ``matched``, ``matched_variance`` (the same axes, nothing stored); ``matched_flags`` (the
        same axes: where the offset of each pixel comes from), ``offset``, ``offset_variance`` and
        ``flags`` (visit, sy, sx) unless each warp was matched alone; and
        ``coadd``, ``coadd_variance``, ``coadd_mask``, ``nimage`` (patch, y, x), and the same
        with ``unmatched_``, computed when read unless the run stored them. Pixel ``[y, x]`` of a
        patch is the tract pixel ``(patch_x0 + x, patch_y0 + y)``; ``sx``, ``sy`` are superpixel
        centres in tract pixels.
        ``exposure_time`` [s], ``mjd``, ``fwhm`` [arcsec] and ``physical_filter`` (visit) are
        there where the inputs tell them.
        ``attrs`` holds tract, band, unit, the WCS cards of the tract in a form that
        ``astropy.wcs.WCS(ds.attrs["wcs"])`` reads, and the patch grid as JSON (``geometry``).

    Raises
    ------
    StoreError
        ``store-missing``, ``store-incomplete`` or ``store-schema``.
    """
    store = TractStore(Location.of(url))
    spec = store.spec
    version = current_version(store.location, run)
    finished = is_committed(store.location, version)
    variables = _direct(store)
    if finished:
        warps = MatchedWarps.of(store.location, run)
        variables |= _matched(store, warps) | _coadds(store, version)
        # Maps of an earlier run of this name are not of this one.
        variables |= _offsets(store, version) if warps.method == "joint" else {}
        background = load_summary(store.location, version)["config"].get("background", {})
        spec = replace(spec, bin_size=int(background.get("bin_size", spec.bin_size)))
    attrs = {
        "tract": spec.geometry.tract,
        "band": spec.geometry.band,
        "unit": spec.unit,
        "wcs": Header(list(spec.geometry.wcs_cards)).tostring(),
        "geometry": json.dumps(asdict(spec.geometry.patches)),
        "bin_size": spec.bin_size,
        "run": run,
        "version": version,
        "run_finished": int(finished),
    }
    return xr.Dataset(variables, _coordinates(spec) | _visit_facts(store), attrs)


def _coordinates(spec: TractSpec) -> dict[str, Any]:
    patches, grid = spec.geometry.patches, spec.grid
    boxes = [patches.plane_box(p) for p in range(patches.n_patches)]
    return {
        "visit": np.asarray(spec.visits, dtype=str),
        "patch": np.arange(patches.n_patches),
        "patch_x0": ("patch", np.array([box.x0 for box in boxes])),
        "patch_y0": ("patch", np.array([box.y0 for box in boxes])),
        "sy": grid.y_centres,
        "sx": grid.x_centres,
    }


def _visit_facts(store: TractStore) -> dict[str, Any]:
    """Return a coordinate per fact that is known of any visit; NaN or empty where unknown."""
    table = read_visits(store.location)
    rows = [table.get(visit, {}) for visit in store.spec.visits]
    out: dict[str, Any] = {}
    for name in sorted({name for row in rows for name in row}):
        is_text = any(isinstance(row.get(name), str) for row in rows)
        blank = "" if is_text else np.nan
        values = np.array([row.get(name, blank) for row in rows], dtype=str if is_text else float)
        out[name] = ("visit", values, {"units": FACTS[name]} if FACTS.get(name) else {})
    return out


def _direct(store: TractStore) -> dict[str, Variable]:
    kind = store.spec.kind
    return {name: _stored(store, f"{kind}/{name}", _unit(store, name)) for name in PLANES}


def _offsets(store: TractStore, run: str) -> dict[str, Variable]:
    names = {"offset": "image", "offset_variance": "variance", "flags": "mask"}
    return {
        name: _stored(store, f"match/{run}/{name}", _unit(store, plane))
        for name, plane in names.items()
        if _has(store, f"match/{run}/{name}")
    }


def _coadds(store: TractStore, run: str) -> dict[str, Variable]:
    out: dict[str, Variable] = {}
    unmatched = UnmatchedCoadd.of(store.location, run)
    for plane, (dtype, _) in COADD_PLANES.items():
        path = f"coadd/{run}_matched/{plane}"
        if _has(store, path):
            name = {"image": "coadd", "nimage": "nimage"}.get(plane, f"coadd_{plane}")
            names, block, attrs = _stored(store, path, _unit(store, plane))
            out[name] = names, block, attrs
            options: dict[str, Any] = {"coadd": unmatched, "plane": plane}
            block = _blocks(_unmatched_block, block.shape, 1, np.dtype(dtype), **options)
            out[f"unmatched_{name}"] = names, block, attrs
    return out


def _matched(store: TractStore, warps: MatchedWarps) -> dict[str, Variable]:
    out: dict[str, Variable] = {}
    for name, plane in (("matched", "image"), ("matched_variance", "variance")):
        array = store.array(f"{store.spec.kind}/{plane}")
        block = _blocks(_matched_block, array.shape, 2, array.dtype, warps=warps, plane=plane)
        out[name] = (("visit", "patch", "y", "x"), block, _unit(store, plane))
    if warps.method == "joint":
        shape = store.array(f"{store.spec.kind}/mask").shape
        flags = _blocks(_flags_block, shape, 2, np.dtype(np.uint8), warps=warps)
        meanings = " ".join(str(flag.name).lower() for flag in Flag)
        masks: dict[str, Any] = {"flag_masks": [int(f) for f in Flag], "flag_meanings": meanings}
        out["matched_flags"] = (("visit", "patch", "y", "x"), flags, masks)
    return out


def _stored(store: TractStore, path: str, attrs: dict[str, str]) -> Variable:
    array = store.array(path)
    names = tuple(str(name) for name in getattr(array.metadata, "dimension_names", None) or ())
    leading = len(names) - 2
    url = store.location.url
    # Visits that joined the store since have no place in arrays of before.
    length = len(store.spec.visits) if names[0] == "visit" else array.shape[0]
    shape = (length, *array.shape[1:])
    return names, _blocks(_read_block, shape, leading, array.dtype, url=url, path=path), attrs


def _blocks(
    function: Callable[..., NDArray[Any]],
    shape: tuple[int, ...],
    leading: int,
    dtype: np.dtype[Any],
    **options: object,
) -> da.Array:
    """Return a lazy array with one block per index of the leading axes: one warp or plane."""
    chunks = tuple((1,) * n for n in shape[:leading]) + tuple((n,) for n in shape[leading:])
    meta = np.empty((0,) * len(shape), dtype)
    blocks: da.Array = da.map_blocks(function, chunks=chunks, dtype=dtype, meta=meta, **options)
    return blocks


def _read_block(*, url: str, path: str, block_id: tuple[int, ...]) -> NDArray[Any]:
    array = open_store(url).array(path)
    if block_id[0] >= array.shape[0]:
        plane = np.full(array.shape[-2:], array.fill_value, array.dtype)
    else:
        # The last two axes are in one block, so that their block numbers are zero.
        plane = open_store(url).read_plane(path, block_id[:-2])
    return plane.reshape((1,) * (len(block_id) - 2) + plane.shape)


def _matched_block(
    *, warps: MatchedWarps, plane: Literal["image", "variance"], block_id: tuple[int, ...]
) -> NDArray[np.float32]:
    visit, patch = block_id[:2]
    box = open_store(warps.url).spec.geometry.patches.plane_box(patch)
    return warps.read(plane, visit, patch, box)[np.newaxis, np.newaxis]


def _unmatched_block(
    *, coadd: UnmatchedCoadd, plane: str, block_id: tuple[int, ...]
) -> NDArray[Any]:
    patch = block_id[0]
    box = open_store(coadd.url).spec.geometry.patches.plane_box(patch)
    return coadd.read(plane, patch, box)[np.newaxis]


def _flags_block(*, warps: MatchedWarps, block_id: tuple[int, ...]) -> NDArray[np.uint8]:
    visit, patch = block_id[:2]
    box = open_store(warps.url).spec.geometry.patches.plane_box(patch)
    return warps.flags(visit, box)[np.newaxis, np.newaxis]


def _unit(store: TractStore, plane: str) -> dict[str, str]:
    units: Mapping[str, str] = {"image": store.spec.unit, "variance": f"{store.spec.unit}**2"}
    return {"units": units[plane]} if plane in units else {}


def _has(store: TractStore, path: str) -> bool:
    try:
        store.array(path)
    except StoreError:
        return False
    return True
