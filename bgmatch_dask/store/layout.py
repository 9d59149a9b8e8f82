"""The layout of a tract store: its schema, its arrays, and how they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from bgmatch_dask.errors import StoreError
from bgmatch_dask.geometry import PatchGrid, SuperpixelGrid, TractGeometry
from bgmatch_dask.maskplanes import MASK_PLANES
from bgmatch_dask.store.location import Location
from bgmatch_dask.store.traffic import note_write

__all__ = (
    "PLANES",
    "SCHEMA",
    "TractSpec",
    "chunk_length",
    "codecs",
    "create_group",
    "create_patch_array",
    "create_plane_array",
    "create_superpixel_array",
    "create_tract",
    "read_spec",
    "restore_tract",
    "spec_to_json",
    "write_superpixel_array",
)

_TOGETHER = 32
"""Planes on superpixels that are written in one call."""

SCHEMA = 1
"""Version of the layout; readers refuse others."""

PLANES: Mapping[str, tuple[str, float | int]] = {
    "image": ("float32", np.nan),
    "variance": ("float32", np.nan),
    "mask": ("int32", 1 << MASK_PLANES["NO_DATA"]),
}
"""Array name to dtype and fill value of the planes of a warp."""


@dataclass(frozen=True, slots=True)
class TractSpec:
    """All that is fixed when a store is made."""

    geometry: TractGeometry
    """Sky position, tract box and patch grid."""
    visits: tuple[str, ...]
    """Unique visit labels, in the order of the visit axis."""
    unit: str
    """Unit of the image, e.g. ``nJy``."""
    bin_size: int
    """Superpixel size [pixels]."""
    chunk: int = 1000
    """Target chunk size [pixels]."""
    kind: str = "direct"
    """Kind of warp, the name of its group."""

    @property
    def grid(self) -> SuperpixelGrid:
        """The superpixel grid of the tract."""
        return SuperpixelGrid(self.geometry.patches.tract_box, self.bin_size, self.bin_size)

    def visit_index(self, visit: str) -> int:
        """Return the place of a visit on the visit axis.

        Raises
        ------
        StoreError
            ``visit-unknown`` when the store has no such visit.
        """
        try:
            return self.visits.index(visit)
        except ValueError:
            raise StoreError(
                "visit-unknown",
                f"The store has no visit {visit!r}",
                fix=f"Visits: {', '.join(self.visits[:20])}{' …' * (len(self.visits) > 20)}",
            ) from None


def create_tract(location: Location, spec: TractSpec, *, rebin: bool = False) -> TractSpec:
    """Make the groups and arrays of a store; nothing is written to the arrays.

    A store whose making was interrupted is made anew. One that holds the same tract is kept;
    visits that it does not know yet join the end of its visit axis, so that no visit moves.

    Parameters
    ----------
    location
        Place of the store.
    spec
        What is to be stored.
    rebin
        Let the store change to another superpixel size; all sums have to be measured again.

    Returns
    -------
    TractSpec
        What the store holds now.

    Raises
    ------
    StoreError
        ``store-exists`` when another tract, or another layout, is already there.
    """
    if location.exists("zarr.json"):
        spec = _joined(location, spec, rebin=rebin)
    _put(location, _tract_objects(spec))
    return spec


def restore_tract(location: Location, spec: Mapping[str, Any]) -> TractSpec:
    """Write the groups and arrays of a store again, from what `spec_to_json` gave for it."""
    found = _spec_from_attrs(spec)
    _put(location, _tract_objects(found))
    return found


def create_group(location: Location, path: str, fill: Callable[[zarr.Group], object]) -> None:
    """Make a group of products and its arrays; what is already in the arrays stays.

    Parameters
    ----------
    location
        Place of the store.
    path
        Path of the group, at least one level below the root.
    fill
        Makes the arrays in the group it is given.
    """
    objects = _objects(lambda root: fill(root.create_group(path)))
    del objects["zarr.json"]
    _put(location, objects)


def _tract_objects(spec: TractSpec) -> dict[str, bytes]:
    def fill(root: zarr.Group) -> None:
        group = root.create_group(spec.kind)
        for name in PLANES:
            create_plane_array(group, name, spec)
        sums = root.create_group("superpixels").create_group(spec.kind)
        _create_unit_sums(sums, spec)
        root.attrs.put(spec_to_json(spec))

    return _objects(fill)


def _objects(fill: Callable[[zarr.Group], object]) -> dict[str, bytes]:
    """Return the metadata objects of a group hierarchy, made in memory; the root comes last."""
    made: dict[str, Any] = {}
    fill(zarr.create_group(zarr.storage.MemoryStore(made)))
    names = sorted(made, key=lambda name: (name == "zarr.json", name))
    return {name: made[name].to_bytes() for name in names}


def _put(location: Location, objects: Mapping[str, bytes]) -> None:
    """Write objects in order, those that are there already excepted.

    No metadata is ever deleted on the way, and the root comes last: a root group with attributes
    is a complete layout, at every moment.
    """
    for name, data in objects.items():
        if location.exists(name) and location.read_bytes(name) == data:
            note_write(name, data)
        else:
            location.write_bytes(name, data)


def _joined(location: Location, spec: TractSpec, *, rebin: bool) -> TractSpec:
    """Return the layout of a store after new visits joined it."""
    have = read_spec(location)
    new = tuple(visit for visit in spec.visits if visit not in set(have.visits))
    wanted = replace(spec, visits=(*have.visits, *new))
    same = replace(have, visits=wanted.visits, bin_size=wanted.bin_size) == wanted
    if not same or (have.bin_size != wanted.bin_size and not rebin):
        raise StoreError(
            "store-exists",
            "The store holds another tract, geometry or bin size",
            where=location.url,
            fix="Give another --store, or delete this one.",
        )
    return wanted


def read_spec(location: Location) -> TractSpec:
    """Read what was fixed when the store was made.

    Raises
    ------
    StoreError
        ``store-missing``, ``store-incomplete`` or ``store-schema``.
    """
    attrs: Mapping[str, Any] = location.open_group().attrs.asdict()
    schema = attrs.get("bgmatch_schema")
    if schema is None:
        raise StoreError(
            "store-incomplete",
            "The store was not finished when it was made, or is not a tract store",
            where=location.url,
            fix="Delete it and run again.",
        )
    if schema != SCHEMA:
        raise StoreError(
            "store-schema",
            f"The store has layout version {schema}, this program reads {SCHEMA}",
            where=location.url,
            fix="Use the program version that made it, or make the store again.",
        )
    return _spec_from_attrs(attrs)


def create_plane_array(group: zarr.Group, name: str, spec: TractSpec) -> zarr.Array[Any]:
    """Make one (visit, patch, y, x) array: a shard is one warp's plane, chunks divide it."""
    lengths = (len(spec.visits), spec.geometry.patches.n_patches)
    return _create_planes(group, name, PLANES[name], spec, lengths, ("visit", "patch"))


def create_patch_array(
    group: zarr.Group, name: str, kind: tuple[str, float | int], spec: TractSpec
) -> zarr.Array[Any]:
    """Make one (patch, y, x) array of a dtype and fill value: a shard is one patch's plane."""
    return _create_planes(group, name, kind, spec, (spec.geometry.patches.n_patches,), ("patch",))


def create_superpixel_array(
    group: zarr.Group, name: str, dtype: str, fill: float, spec: TractSpec
) -> zarr.Array[Any]:
    """Make, or make anew, one (visit, sy, sx) array on the superpixel grid of the tract."""
    shape = spec.grid.shape
    return group.create_array(
        name,
        shape=(len(spec.visits), *shape),
        chunks=(1, *shape),
        dtype=dtype,
        fill_value=fill,
        compressors=codecs(),
        dimension_names=("visit", "sy", "sx"),
        overwrite=True,
    )


def write_superpixel_array(
    group: zarr.Group,
    name: str,
    kind: tuple[str, float],
    planes: Iterable[tuple[int, NDArray[Any]]],
    spec: TractSpec,
) -> None:
    """Make one (visit, sy, sx) array of a dtype and fill value, and write its planes.

    Parameters
    ----------
    group, name, kind, spec
        As for `create_superpixel_array`.
    planes
        Index and plane ``(sy, sx)`` of visits, by index; those of others stay empty.
    """
    array = create_superpixel_array(group, name, *kind, spec)
    # A call of Zarr costs more than a plane: many go together, but not all of a deep tract.
    for first, some in groupby(planes, key=lambda plane: plane[0] - plane[0] % _TOGETHER):
        slab = np.full((_TOGETHER, *spec.grid.shape), kind[1], kind[0])
        for index, plane in some:
            slab[index - first] = plane
        array[first : first + _TOGETHER] = slab[: len(spec.visits) - first]


def _create_planes(
    group: zarr.Group,
    name: str,
    kind: tuple[str, float | int],
    spec: TractSpec,
    lengths: tuple[int, ...],
    names: tuple[str, ...],
) -> zarr.Array[Any]:
    dtype, fill = kind
    height, width = spec.geometry.patches.plane_shape
    ones = (1,) * len(lengths)
    return group.create_array(
        name,
        shape=(*lengths, height, width),
        shards=(*ones, height, width),
        chunks=(*ones, chunk_length(height, spec.chunk), chunk_length(width, spec.chunk)),
        dtype=dtype,
        fill_value=fill,
        compressors=codecs(),
        dimension_names=(*names, "y", "x"),
    )


def codecs() -> list[BloscCodec | Crc32cCodec]:
    """Return codecs of which the last finds every flipped bit; Blosc alone finds none.

    Bytes are shuffled, not bits: warps grow by 3 % and are written and read in two thirds of the
    time.
    """
    return [BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"), Crc32cCodec()]


def chunk_length(length: int, target: int) -> int:
    """Return the divisor of ``length`` that is nearest to ``target`` on a log scale.

    Chunks that divide the plane read and write about twice as fast as chunks that do not.
    """
    pairs = (d for d in range(1, int(length**0.5) + 1) if length % d == 0)
    divisors = {d for small in pairs for d in (small, length // small)}
    best = min(sorted(divisors), key=lambda d: abs(np.log(d / target)))
    # A plane whose size has no fair divisor (a prime, say) stays in one piece.
    return best if target / 4 <= best <= target * 4 else length


def _create_unit_sums(group: zarr.Group, spec: TractSpec) -> None:
    patches = spec.geometry.patches
    shapes = [spec.grid.window(patches.inner_box(p)).shape for p in range(patches.n_patches)]
    ny, nx = max(s[0] for s in shapes), max(s[1] for s in shapes)
    group.create_array(
        "units",
        shape=(len(spec.visits), patches.n_patches, SUM_QUANTITIES, ny, nx),
        chunks=(1, 1, SUM_QUANTITIES, ny, nx),
        dtype="float64",
        fill_value=np.nan,
        compressors=codecs(),
        dimension_names=("visit", "patch", "quantity", "sy", "sx"),
    )


SUM_QUANTITIES = 8
"""Number of additive sums that are kept per superpixel."""


def spec_to_json(spec: TractSpec) -> dict[str, Any]:
    """Return what is fixed for a store as JSON types: the attributes of its root group."""
    geometry = spec.geometry
    return {
        "bgmatch_schema": SCHEMA,
        "tract": geometry.tract,
        "band": geometry.band,
        "wcs": [list(card) for card in geometry.wcs_cards],
        "patches": asdict(geometry.patches),
        "mask_planes": dict(MASK_PLANES),
        "unit": spec.unit,
        "visits": list(spec.visits),
        "bin_size": spec.bin_size,
        "chunk": spec.chunk,
        "kind": spec.kind,
    }


def _spec_from_attrs(attrs: Mapping[str, Any]) -> TractSpec:
    return TractSpec(
        geometry=TractGeometry(
            tract=attrs["tract"],
            band=attrs["band"],
            wcs_cards=tuple((key, value) for key, value in attrs["wcs"]),
            patches=PatchGrid(**attrs["patches"]),
        ),
        visits=tuple(attrs["visits"]),
        unit=attrs["unit"],
        bin_size=attrs["bin_size"],
        chunk=attrs["chunk"],
        kind=attrs["kind"],
    )
