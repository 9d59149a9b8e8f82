"""Export of offsets, matched warps and coadds as FITS files with a correct WCS."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask import __version__
from bgmatch_dask.background.offsets import render_flags
from bgmatch_dask.background.solution import Flag
from bgmatch_dask.errors import ConfigError, StoreError
from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import MASK_PLANES, NO_DATA
from bgmatch_dask.pipeline.results import load_offset, offset_on
from bgmatch_dask.pipeline.unmatched import UnmatchedCoadd
from bgmatch_dask.pipeline.view import MatchedWarps
from bgmatch_dask.report.background_lists import export_background_lists
from bgmatch_dask.report.fits_files import (
    Card,
    Plane,
    Reader,
    card_text,
    safe_name,
    stream_planes,
    write_planes,
)
from bgmatch_dask.store import Location, TractStore
from bgmatch_dask.warps.lsst_writing import write_lsst_warp
from bgmatch_dask.warps.warp import Warp

__all__ = ("Product", "export_fits", "offset_planes")

Product = Literal["offset", "background", "matched", "coadd", "unmatched-coadd", "nimage"]

_FLAG_CARDS: tuple[Card, ...] = (
    ("FL_MEAS", int(Flag.MEASURED)),
    ("FL_INTER", int(Flag.INTERPOLATED)),
    ("FL_EXTRA", int(Flag.EXTRAPOLATED)),
    ("FL_DISCO", int(Flag.DISCONNECTED)),
)


@dataclass(frozen=True, slots=True)
class _Export:
    """One product of one visit, or of the coadd: its planes, pixels and patches with data."""

    product: Product
    visit: str | None
    planes: tuple[Plane, ...]
    read: Reader
    patches: tuple[int, ...]
    as_warp: bool


def export_fits(
    location: Location,
    run: str,
    product: Product,
    out_dir: str | os.PathLike[str],
    visit: str | None = None,
    patch: int | None = None,
    whole_tract: bool = False,
) -> list[Path]:
    """Write a product of a finished run as ``<product>[_visit<ID>][_patch<N>].fits``.

    Parameters
    ----------
    location, run
        The store and the run in it.
    product
        ``offset``: what is to be *added* to a visit, on the pixels of the tract, with its
        variance and, where it is one surface over the tract, flags. ``background``: the same as
        an LSST background list, see `bgmatch_dask.report.background_lists`. ``matched``, ``coadd``,
        ``unmatched-coadd``: image, mask and variance in the layout of an LSST ``ExposureF``.
        ``nimage``: visits per pixel of the coadd.
    out_dir
        Folder for the files, made when missing; files of the same name are replaced.
    visit
        One visit; None for all that have the product. Characters of a label that could lead out
        of the folder are percent-encoded in the name of the file.
    patch
        One patch; None for all that hold data.
    whole_tract
        One file of all inner boxes instead of one file per patch (outer boxes).

    Returns
    -------
    list of Path
        The files, in the order of visits and patches.

    Raises
    ------
    ConfigError
        ``product-unknown``, ``export-conflict`` when the arguments exclude each other,
        ``patch-unknown``.
    StoreError
        ``run-missing``, ``visit-unknown``, ``offset-missing`` for the offset of the reference,
        or ``nothing-to-export`` when no unit that was asked for holds data.
    """
    store = TractStore(location)
    _check(store, product, visit, patch, whole_tract)
    matched = MatchedWarps.of(location, run)
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    if product == "background":
        paths = export_background_lists(location, run, folder, visit, patch, whole_tract)
    for export in _exports(store, matched, product, visit):
        if whole_tract:
            paths += _write_tract(store, matched, export, folder)
        else:
            wanted = export.patches if patch is None else {patch} & set(export.patches)
            paths += [_write_patch(store, matched, export, folder, p) for p in wanted]
    if not paths:
        raise StoreError(
            "nothing-to-export",
            f"No unit that was asked for holds data of the product {product!r}",
            where=location.url,
            fix="Leave out --visit or --patch to export all that there is.",
        )
    return paths


def _check(
    store: TractStore, product: str, visit: str | None, patch: int | None, whole_tract: bool
) -> None:
    if product not in get_args(Product):
        known = ", ".join(get_args(Product))
        raise ConfigError(
            "product-unknown", f"There is no product {product!r}", fix=f"Products: {known}."
        )
    if whole_tract and patch is not None:
        raise ConfigError(
            "export-conflict", "A file of the whole tract has no patch", fix="Leave out one."
        )
    if visit is not None and product not in {"offset", "background", "matched"}:
        raise ConfigError(
            "export-conflict", f"The product {product!r} has no visit", fix="Leave out --visit."
        )
    n_patches = store.spec.geometry.patches.n_patches
    if patch is not None and not 0 <= patch < n_patches:
        raise ConfigError(
            "patch-unknown", f"There is no patch {patch}", fix=f"Patches: 0 to {n_patches - 1}."
        )


def _exports(
    store: TractStore, matched: MatchedWarps, product: Product, visit: str | None
) -> Iterator[_Export]:
    if product == "offset":
        yield from _offset_exports(store, matched, visit)
    elif product == "matched":
        for label in store.spec.visits if visit is None else (visit,):
            yield _matched_export(store, matched, label)
    elif product != "background":
        yield _coadd_export(store, matched.run, product)


def _offset_exports(
    store: TractStore, matched: MatchedWarps, visit: str | None
) -> Iterator[_Export]:
    planes = offset_planes(store)
    if matched.method == "per_warp":
        planes = planes[:2]
    for label in store.spec.visits if visit is None else (visit,):
        patches = tuple(p for p in store.patches_of(label) if matched.offset(label, p))
        if not patches and visit is not None:
            raise StoreError(
                "offset-missing",
                f"Run {matched.run!r} has no offset for visit {label}",
                where=store.location.url,
                fix="The reference has none; run the job for the others.",
            )
        if patches:
            read = _offset_reader(store, matched, label)
            yield _Export("offset", label, planes, read, patches, as_warp=False)


def offset_planes(store: TractStore) -> tuple[Plane, ...]:
    """Return the planes of an offset: itself, its variance and its flags."""
    unit = card_text(store.spec.unit)
    return (
        Plane("OFFSET", "float32", np.nan, unit),
        Plane("VARIANCE", "float32", np.nan, f"{unit}**2"),
        Plane("FLAGS", "uint8", 0, "", _FLAG_CARDS),
    )


def _offset_reader(store: TractStore, matched: MatchedWarps, visit: str) -> Reader:
    def read(plane: Plane, patch: int, box: Box) -> NDArray[Any]:
        if plane.name == "FLAGS":
            return render_flags(load_offset(store, matched.run, visit), box)
        offset = offset_on(store, matched.run, visit, patch, matched.method)
        return offset.image(box) if plane.name == "OFFSET" else offset.variance(box)

    return read


def _matched_export(store: TractStore, matched: MatchedWarps, visit: str) -> _Export:
    index = store.spec.visit_index(visit)

    def read(plane: Plane, patch: int, box: Box) -> NDArray[Any]:
        if plane.name == "MASK":
            return store.read("mask", index, patch, box)
        if plane.name == "IMAGE":
            return matched.read("image", index, patch, box)
        return _infinite(matched.read("variance", index, patch, box))

    patches = tuple(p for p in store.patches_of(visit) if matched.knows(visit, p))
    return _Export("matched", visit, _warp_planes(store), read, patches, as_warp=True)


def _coadd_export(store: TractStore, run: str, product: Product) -> _Export:
    if product == "unmatched-coadd":
        return _unmatched_export(store, run)
    planes = _warp_planes(store)
    if product == "nimage":
        planes = (Plane("NIMAGE", "int32", 0, ""),)

    def read(plane: Plane, patch: int, box: Box) -> NDArray[Any]:
        values = store.read_patch_plane(f"coadd/{run}_matched/{plane.name.lower()}", patch, box)
        return _infinite(values) if plane.name == "VARIANCE" else values

    path = f"coadd/{run}_matched/image"
    all_patches = range(store.spec.geometry.patches.n_patches)
    patches = tuple(p for p in all_patches if store.holds_plane(path, (p,)))
    return _Export(product, None, planes, read, patches, as_warp=product != "nimage")


def _unmatched_export(store: TractStore, run: str) -> _Export:
    coadd, planes = UnmatchedCoadd.of(store.location, run), _warp_planes(store)
    names = tuple(plane.name.lower() for plane in planes)
    latest: dict[tuple[int, Box], dict[str, NDArray[Any]]] = {}

    def read(plane: Plane, patch: int, box: Box) -> NDArray[Any]:
        # The planes of a patch come one after the other: its warps are read once for all.
        if (patch, box) not in latest:
            latest.clear()
            latest[patch, box] = coadd.planes(names, patch, box)
        values = latest[patch, box][plane.name.lower()]
        return _infinite(values) if plane.name == "VARIANCE" else values

    return _Export("unmatched-coadd", None, planes, read, coadd.patches, as_warp=True)


def _warp_planes(store: TractStore) -> tuple[Plane, ...]:
    unit = card_text(store.spec.unit)
    bits = tuple((f"MP_{name}", bit) for name, bit in MASK_PLANES.items())
    return (
        Plane("IMAGE", "float32", np.nan, unit),
        Plane("MASK", "int32", NO_DATA, "", bits),
        Plane("VARIANCE", "float32", np.inf, f"{unit}**2"),
    )


def _infinite(variance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a variance of the store as files hold it: infinite where there is no data."""
    return np.where(np.isnan(variance), np.float32(np.inf), variance)


def _cards(matched: MatchedWarps, export: _Export) -> list[Card]:
    cards: list[Card] = [
        ("BGPROD", export.product),
        ("BGRUN", card_text(matched.run)),
        ("BGREF", card_text(matched.reference)),
        ("BGVERS", __version__),
    ]
    if export.visit is not None:
        cards.append(("BGVISIT", card_text(export.visit)))
    return cards


def _name(export: _Export, patch: int | None) -> str:
    visit = "" if export.visit is None else f"_visit{safe_name(export.visit)}"
    place = "" if patch is None else f"_patch{patch}"
    return f"{export.product}{visit}{place}.fits"


def _write_tract(
    store: TractStore, matched: MatchedWarps, export: _Export, folder: Path
) -> list[Path]:
    if not export.patches:
        return []
    path = folder / _name(export, None)
    stream_planes(
        path,
        store.spec.geometry,
        export.planes,
        _cards(matched, export),
        export.read,
        export.patches,
        empty_primary=export.as_warp,
    )
    return [path]


def _write_patch(
    store: TractStore, matched: MatchedWarps, export: _Export, folder: Path, patch: int
) -> Path:
    geometry = store.spec.geometry
    box = geometry.patches.outer_box(patch)
    path = folder / _name(export, patch)
    pixels = [export.read(plane, patch, box) for plane in export.planes]
    if export.as_warp:
        _write_warp(path, store, box, pixels, export.visit, patch, _cards(matched, export))
    else:
        planes = list(zip(export.planes, pixels, strict=True))
        write_planes(path, geometry, box, planes, _cards(matched, export))
    return path


def _write_warp(
    path: Path,
    store: TractStore,
    box: Box,
    pixels: Sequence[NDArray[Any]],
    visit: str | None,
    patch: int,
    cards: Sequence[Card],
) -> None:
    geometry = store.spec.geometry
    image, mask, variance = pixels
    write_lsst_warp(
        path,
        Warp(box, image, variance, mask),
        geometry.wcs_cards,
        visit=None if visit is None else card_text(visit),
        tract=card_text(geometry.tract),
        patch=patch,
        band=card_text(geometry.band),
        bunit=card_text(store.spec.unit),
        cards=cards,
    )
