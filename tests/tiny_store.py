"""A tiny finished store, written by hand through the public functions, with hostile labels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bgmatch_dask.background.layout import node_shape
from bgmatch_dask.background.solution import Flag, Offset
from bgmatch_dask.coadd.layout import COADD_PLANES
from bgmatch_dask.geometry import PatchGrid, TractGeometry
from bgmatch_dask.maskplanes import NO_DATA
from bgmatch_dask.pipeline.coadd_unit import CoaddTask, coadd_patch
from bgmatch_dask.pipeline.diagnostics import COLUMNS, save_diagnostics
from bgmatch_dask.pipeline.results import save_solution, save_summary, save_visit_sums
from bgmatch_dask.store import Location, TractSpec, TractStore, create_tract
from bgmatch_dask.store.commit import commit_run
from bgmatch_dask.store.layout import create_patch_array

REFERENCE, MATCHED, SCRIPT, EVIL = "12", "34", "<script>alert(1)</script>", "../../evil $\\frac"
VISITS = (REFERENCE, MATCHED, SCRIPT, EVIL)
PATCHES = {REFERENCE: (0, 1, 2, 3), MATCHED: (0, 1), SCRIPT: (2, 3), EVIL: (0,)}
STAR = (150.1, 2.2)
STAR_PIXEL = (150, 90)
STAR_PATCH = 3
RUN = "main"

GEOMETRY = TractGeometry(
    "<b>tract</b>",
    "r<i>",
    (
        ("CTYPE1", "RA---TAN"),
        ("CTYPE2", "DEC--TAN"),
        ("CRVAL1", STAR[0]),
        ("CRVAL2", STAR[1]),
        ("CRPIX1", STAR_PIXEL[0] + 1.0),
        ("CRPIX2", STAR_PIXEL[1] + 1.0),
        ("CD1_1", -0.2 / 3600),
        ("CD1_2", 0.0),
        ("CD2_1", 0.0),
        ("CD2_2", 0.2 / 3600),
        ("RADESYS", "ICRS"),
    ),
    PatchGrid(x0=100, y0=50, inner_width=48, inner_height=40, border=8, nx=2, ny=2),
)
"""A tract that does not start at pixel zero; the star lies in the inner box of `STAR_PATCH`."""


def build_tiny_store(folder: Path, unit: str = "DN", *, write_unmatched: bool = False) -> Location:
    """Write a store with a finished run and return its place."""
    place = Location.of(str(folder / "tiny.zarr"))
    return fill_tiny_store(place, unit, write_unmatched=write_unmatched)


def fill_tiny_store(
    location: Location, unit: str = "DN", *, write_unmatched: bool = False
) -> Location:
    """Write the same store at any place."""
    create_tract(location, TractSpec(GEOMETRY, VISITS, unit, bin_size=16, chunk=16))
    store = TractStore(location)
    for index, visit in enumerate(VISITS):
        for patch in PATCHES[visit]:
            _write_warp(store, index, patch)
    counts = {v: SimpleNamespace(mean=c, count=c, variance=c) for v, c in _counts(store).items()}
    save_visit_sums(store, counts)
    offsets = {v: _offset(store, v, i) for i, v in enumerate(VISITS) if v in (MATCHED, SCRIPT)}
    save_solution(store, RUN, SimpleNamespace(offsets=offsets))
    _coadd(store, write_unmatched=write_unmatched)
    save_summary(location, RUN, summary(unit))
    save_diagnostics(location, RUN, unit, *diagnostics())
    commit_run(location, RUN, {})
    return location


def _write_warp(store: TractStore, index: int, patch: int) -> None:
    patches = GEOMETRY.patches
    box, plane = patches.outer_box(patch), patches.plane_box(patch)
    rng = np.random.default_rng([index, patch])
    image = np.full(plane.shape, np.nan, np.float32)
    mask = np.full(plane.shape, NO_DATA, np.int32)
    window = box.slices_in(plane)
    image[window] = 100.0 * (index + 1) + rng.normal(0, 1, box.shape)
    mask[window] = 0
    if plane.x0 <= STAR_PIXEL[0] < plane.x1 and plane.y0 <= STAR_PIXEL[1] < plane.y1:
        image[STAR_PIXEL[1] - plane.y0, STAR_PIXEL[0] - plane.x0] += 5000.0
    store.write_plane("image", index, patch, image)
    store.write_plane("variance", index, patch, np.where(mask == 0, 1.0, np.nan).astype("f4"))
    store.write_plane("mask", index, patch, mask)


def _counts(store: TractStore) -> dict[str, np.ndarray]:
    counts = {}
    for visit in VISITS:
        counts[visit] = np.zeros(store.spec.grid.shape)
        for patch in PATCHES[visit]:
            window = store.spec.grid.window(GEOMETRY.patches.inner_box(patch))
            counts[visit][window.slices] = 256.0
    return counts


def _offset(store: TractStore, visit: str, index: int) -> Offset:
    grid = store.spec.grid
    rng = np.random.default_rng(index)
    flags = np.full(grid.shape, Flag.MEASURED, np.uint8)
    flags[0] = Flag.EXTRAPOLATED
    nodes = -100.0 * index + rng.normal(0, 1, node_shape(grid, 1))
    return Offset(visit, grid, 1, nodes, rng.uniform(0.1, 0.2, grid.shape), flags)


def _coadd(store: TractStore, *, write_unmatched: bool) -> None:
    for name in ("matched", "unmatched") if write_unmatched else ("matched",):
        group = store.group(f"coadd/{RUN}_{name}")
        for plane, kind in COADD_PLANES.items():
            create_patch_array(group, plane, kind, store.spec)
    for patch in range(4):
        weights = tuple((v, 1.0) for v in VISITS if v != EVIL and patch in PATCHES[v])
        coadd_patch(
            CoaddTask(
                url=store.location.url,
                run=RUN,
                patch=patch,
                weights=weights,
                reference=REFERENCE,
                dropped=(),
                bad_bits=NO_DATA,
                write_unmatched=write_unmatched,
                digest="",
            )
        )


def summary(unit: str = "DN") -> dict:
    """Return a summary in which every text is hostile."""
    bad = "<img src=x onerror=alert(2)>"
    visits = [_visit_row(visit) for visit in VISITS]
    pair = {"hub": REFERENCE, "n_superpixels": 4, "before": -90.0, "after": 0.01, "sigma": 0.02}
    candidate = {"n_superpixels": 30, "chi2": 1.5, "variance": 1.0, "coverage": 1.0}
    return {
        "schema": 1,
        "run": RUN,
        "tract": GEOMETRY.tract,
        "band": GEOMETRY.band,
        "unit": unit,
        "version": bad,
        "config": {"run": bad, "match": {"gate_ratio": 1.1, "order": "</pre>" + bad}},
        "plan": {"store": bad, "units": 9, "patches": {"nx": 2, "ny": 2}},
        "reference": {
            "visit": REFERENCE,
            "forced": False,
            "candidates": [
                {**candidate, "visit": SCRIPT, "cost": None},
                {**candidate, "visit": REFERENCE, "cost": 0.1},
            ],
        },
        "visits": visits,
        "pairs": [{**pair, "visit": v} for v in (MATCHED, SCRIPT)],
        "overlaps": {"pairs": 2, "rms_before": 90.0, "rms_after": 0.01, "worst": 0.01},
        "solver": {bad: bad, "noise factor": 1.0},
        "rejected": [{"code": bad, "detail": "'\"" + bad, "source": "/data/" + bad}],
        "timings": {bad: 1.5, "solve": 0.25},
    }


def diagnostics() -> tuple[list[dict], list[dict]]:
    """Return rows of diagnostics of the visits and warps, hostile as the summary."""
    visits = [
        {c.name: None for c in COLUMNS} | _visit_row(visit) | {"patch": None, "cv_rms": 0.1 + i}
        for i, visit in enumerate(VISITS)
    ]
    warps = [row | {"patch": p} for row in visits for p in PATCHES[row["visit"]]]
    return visits, warps


def _visit_row(visit: str) -> dict:
    return {
        "visit": visit,
        "status": {REFERENCE: "reference", EVIL: "disconnected"}.get(visit, "matched"),
        "sky_level": 100.0,
        "sky_sigma": None,
        "coverage": 0.5,
        "measured": None,
        "n_patches": 2,
        "offset_median": -100.0,
        "fit_rms": 0.1,
        "matched_mse": 1.0,
        "diff_variance": 0.5,
        "ratio": 2.0,
        "chi2": 1.2,
        "gate": "warn" if visit == SCRIPT else "pass",
        "reasons": ["ratio"] if visit == SCRIPT else [],
    }
