"""Offsets in the layout of LSST background lists, for programs that read those."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bgmatch_dask.background.offsets import sample
from bgmatch_dask.background.solution import Offset
from bgmatch_dask.errors import StoreError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.background_list import BackgroundList
from bgmatch_dask.numerics.cells import CellGrid
from bgmatch_dask.numerics.gridded import BackgroundControl, background_from_values
from bgmatch_dask.numerics.rendering import UndersampleStyle
from bgmatch_dask.pipeline.results import load_offset
from bgmatch_dask.pipeline.view import MatchedWarps
from bgmatch_dask.pipeline.warp_offsets import load_warp_offset
from bgmatch_dask.report.fits_files import safe_name
from bgmatch_dask.store import Location, TractStore
from bgmatch_dask.warps.background_fits import write_background_list

__all__ = ("export_background_lists", "offset_as_list")

_CELLS_PER_SUPERPIXEL = 2


def offset_as_list(offset: Offset, box: Box) -> BackgroundList:
    """Return an offset on a box as a background list of one element.

    The element's cells are half a superpixel wide; its planes are the offset at the centre of each
    cell, the variance of the offset, and its `Flag` bits as the mask. AKIMA interpolation of the
    cells is exact for ramps; for other surfaces it differs from `render` by the interpolation.
    """
    size = offset.grid.bin_x, offset.grid.bin_y
    nx, ny = (
        max(-(-length * _CELLS_PER_SUPERPIXEL // n), 1)
        for length, n in zip((box.width, box.height), size, strict=True)
    )
    cells = CellGrid.divide(box, nx, ny)
    values, variance, flags = sample(offset, box.y0 + cells.y_centres, box.x0 + cells.x_centres)
    control = BackgroundControl(nx, ny, undersample=UndersampleStyle.REDUCE_INTERP_ORDER)
    made = background_from_values(box, values, variance, flags.astype(np.int32), control)
    return BackgroundList([made])


def export_background_lists(
    location: Location,
    run: str,
    out_dir: Path,
    visit: str | None = None,
    patch: int | None = None,
    whole_tract: bool = False,
) -> list[Path]:
    """Write what is *added* to each visit as ``background_visit<ID>[_patch<N>].fits``.

    Parameters
    ----------
    location, run
        The store and the finished run in it.
    out_dir
        Folder that exists.
    visit, patch
        One visit, one patch; None for all that have an offset.
    whole_tract
        One file of the tract per visit instead of one per patch (outer boxes).

    Returns
    -------
    list of Path
        The files, in the order of visits and patches.

    Raises
    ------
    StoreError
        ``visit-unknown``, ``run-missing``. A visit without an offset has no file; nor has the
        whole tract where each warp was matched alone.
    """
    store = TractStore(location)
    matched = MatchedWarps.of(location, run)
    paths = []
    for label in store.spec.visits if visit is None else (visit,):
        found = _lists(store, matched, label, patch, whole_tract=whole_tract)
        for place, backgrounds in found:
            suffix = "" if place is None else f"_patch{place}"
            path = out_dir / f"background_visit{safe_name(label)}{suffix}.fits"
            write_background_list(backgrounds, path)
            paths.append(path)
    return paths


def _lists(
    store: TractStore, matched: MatchedWarps, visit: str, patch: int | None, *, whole_tract: bool
) -> Iterator[tuple[int | None, BackgroundList]]:
    patches = store.spec.geometry.patches
    wanted = [p for p in store.patches_of(visit) if patch in {None, p}]
    if matched.method == "joint":
        try:
            offset = load_offset(store, matched.run, visit)
        except StoreError as error:
            if error.code != "offset-missing":
                raise
            return
        if whole_tract:
            yield None, offset_as_list(offset, patches.tract_box)
        else:
            yield from ((p, offset_as_list(offset, patches.outer_box(p))) for p in wanted)
    elif not whole_tract:
        for place in wanted:
            found = load_warp_offset(store, matched.run, visit, place)
            if found is not None:
                yield place, found.model.as_list()
