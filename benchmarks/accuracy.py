"""Part `accuracy`: offsets against the truth, in units of the photon noise, and real tiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.accuracy_cases import Case, Rows, measure_cases, measure_tiles
from benchmarks.measure import ROOT, processes
from benchmarks.progress import Progress
from benchmarks.results import Cell, Check, Figure, PartResult, Plot, Table, spread
from benchmarks.sizes import Size
from bgmatch_dask.report.truth_table import TruthRow
from bgmatch_dask.warps.simulation import SimulationConfig

__all__ = ("growth_of", "run")

_ORION = ROOT.parent / "shared" / "data" / "2mass_orion_J"
_DEFAULT = "default tract, default settings"
_TEXT = (
    "Simulated tracts with a known truth, each matched with default settings unless a row says "
    "otherwise. The error of a visit is the rms, over the superpixels that it covers, of estimated "
    "− true offset; the limit is the photon noise of the visit's own superpixel means, below which "
    "no method gets that looks at one superpixel at a time. A ratio below 1 means that the smooth "
    "solution has averaged noise away. On real tiles there is no truth: overlaps are left out of "
    "the solution in turns and predicted from the others."
)


def run(size: Size, work: Path, progress: Progress) -> PartResult:
    """Match the default tract, grow it, change one property at a time; then real tiles."""
    found, tiles = _measured(_cases(size), size, work, progress)
    default = found[_DEFAULT]
    grown = {n: found[_grown(n)] for n in size.growth}
    steady = {n: found[_grown(n, same_sky=True)] for n in size.growth}
    first, last = size.growth[0], size.growth[-1]
    growth = max(growth_of(part[first], part[last]) for part in (grown, steady))
    tied = _tied(default)
    figures = [
        spread("accuracy.ratio", [r.ratio for r in tied], "x", "lower", relative=True),
        _one("accuracy.worst_ratio", _worst(default), "lower"),
        _one("accuracy.growth_with_tract", growth, "lower"),
    ]
    checks = [
        Check(
            "Worst visit's offset error over the photon limit, default tract and settings, visits "
            "that overlap the reference",
            _worst(default),
            1.2,
        ),
        Check(
            f"Largest growth of a visit's error from {first} × {first} to {last} × {last} "
            "patches, in units of the photon limit",
            growth,
            0.15,
        ),
    ]
    tables = [
        _default_table(default),
        _growth_table(grown, steady),
        _sweep_table(found, size),
    ]
    skipped = {}
    if tiles is None:
        skipped["2MASS tiles of Orion"] = f"{_ORION.name} is not beside the repository"
    else:
        tables.append(_tiles_table(tiles, size.folds))
        rms = _rms(row["mean"] for row in tiles)
        before = _rms(row["before"] for row in tiles)
        figures += [
            spread("accuracy.orion_left_out_rms", [rms], "DN", "lower"),
            _one("accuracy.orion_left_out_share", rms / before, "lower"),
        ]
    return PartResult(
        "accuracy",
        "Distance from the truth",
        _TEXT,
        tuple(figures),
        tuple(tables),
        (_plot(found, size),),
        tuple(checks),
        skipped,
    )


def _one(key: str, value: float, better: str) -> Figure:
    return spread(key, [value], "x", better, relative=True)


# ------------------------------------------------------------------ what is measured


def _cases(size: Size) -> list[Case]:
    default = SimulationConfig() if size.name != "tiny" else _sweep_base(size)
    cases = [Case(_DEFAULT, default, 128 if size.name != "tiny" else size.sweep_bin)]
    base = _sweep_base(size)
    for n in size.growth:
        larger = replace(base, patches=(n, n))
        # The sky changes with the tract; here it has the same slopes and bumps in every pixel.
        f = n / size.growth[0]
        same = replace(
            larger,
            sky_gradient=base.sky_gradient * f,
            sky_curvature=base.sky_curvature * f**2,
            bump_sigma=base.bump_sigma / f,
        )
        cases.append(Case(_grown(n), larger, size.sweep_bin))
        cases.append(Case(_grown(n, same_sky=True), same, size.sweep_bin))
    return cases + _sweep(size)


def _sweep_base(size: Size) -> SimulationConfig:
    patch = size.sweep_patch
    return SimulationConfig(patches=(3, 3), patch_size=patch, border=patch // 12)


def _grown(side: int, *, same_sky: bool = False) -> str:
    return f"{side} × {side} patches{', the same sky per pixel' if same_sky else ''}"


def _sweep(size: Size) -> list[Case]:
    """Return the default tract, smaller at small sizes, and one property changed at a time."""
    base, bins = _sweep_base(size), size.sweep_bin
    stars, galaxies = base.star_density, base.galaxy_density
    crowded = replace(base, star_density=4 * stars, galaxy_density=4 * galaxies)
    broad = replace(base, pointings="broad")
    all_cases = [
        Case(f"3 × 3 patches of {size.sweep_patch} px, bins of {bins} px", base, bins),
        Case(f"bins of {bins // 2} px", base, bins // 2),
        Case(f"bins of {2 * bins} px", base, 2 * bins),
        Case("a quarter of the depth", replace(base, gain=0.25), bins),
        Case("four times the depth", replace(base, gain=4.0), bins),
        Case("three visits", replace(base, visits=3), bins),
        Case("the same seeing", replace(base, psf_fwhm=(3.6, 3.6)), bins),
        Case("seeing from 2.5 to 6 px", replace(base, psf_fwhm=(2.5, 6.0)), bins),
        Case("four times the sources", crowded, bins),
        Case("large overlaps", broad, bins),
        Case("large overlaps, a reference of 62 % of the tract", broad, bins, reference=0),
    ]
    return all_cases if size.name != "tiny" else all_cases[:1]


def _measured(
    cases: Sequence[Case], size: Size, work: Path, progress: Progress
) -> tuple[dict[str, Rows], list[dict[str, float]] | None]:
    """Simulate and match all cases on two processes, the longest first.

    One process takes a whole tract at a time: with so many tracts nothing is gained by sharing one.
    """
    groups: dict[SimulationConfig, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.simulation, []).append(case)
    ordered = sorted(groups.values(), key=lambda group: -group[0].pixels * len(group))
    progress.expect(len(groups) + _ORION.is_dir())
    found: dict[str, Rows] = {}
    with processes(2) as pool:
        tiles = (
            pool.submit(measure_tiles, str(_ORION), str(work), size.folds)
            if _ORION.is_dir()
            else None
        )
        jobs = {pool.submit(measure_cases, group, str(work)): group for group in ordered}
        for job in as_completed(jobs):
            found.update(job.result())
            progress.step(f"matched: {jobs[job][0].name}")
        if tiles is not None:
            progress.step("tiles of Orion")
        return found, None if tiles is None else tiles.result()


# ------------------------------------------------------------------ what is shown


def _tied(rows: Iterable[TruthRow]) -> list[TruthRow]:
    return [row for row in rows if row.overlaps_reference]


def _worst(rows: Iterable[TruthRow]) -> float:
    return max((row.ratio for row in _tied(rows)), default=float("nan"))


def growth_of(small: Rows, large: Rows) -> float:
    """Return by how much a visit's ratio grew at most from one tract to another."""
    before = {row.visit: row.ratio for row in _tied(small)}
    return max(row.ratio - before[row.visit] for row in _tied(large) if row.visit in before)


def _default_table(rows: Rows) -> Table:
    cells: list[tuple[Cell, ...]] = [
        (
            r.visit,
            r.n_superpixels,
            100 * r.n_shared / r.n_superpixels,
            r.rms_before,
            r.rms_error,
            r.rms_error_shared,
            r.noise,
            r.ratio,
        )
        for r in rows
    ]
    return Table(
        "Visits of the default tract",
        (
            "visit",
            "superpixels",
            "shared with the reference [%]",
            "sky before",
            "error",
            "error where shared",
            "limit",
            "ratio",
        ),
        tuple(cells),
        "In nJy; sky before: rms of the true difference of the two skies about its mean. A visit "
        "that shares nothing with the reference is tied to it through other visits.",
    )


def _growth_table(grown: Mapping[int, Rows], steady: Mapping[int, Rows]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for what, part in (("sky of the tract's size", grown), ("the same sky per pixel", steady)):
        ratios = [{row.visit: row.ratio for row in _tied(r)} for r in part.values()]
        rows += [(f"{v}, {what}", *(found.get(v) for found in ratios)) for v in ratios[0]]
    return Table(
        "Ratio of each visit as the tract grows by patches of one size",
        ("visit", *(f"{n} × {n} patches" for n in grown)),
        tuple(rows),
        "Visits that overlap the reference. The simulated sky and pointings scale with the tract; "
        "in the second half slopes and scattered light keep their size in pixels. The limit is "
        "that of one superpixel at every size.",
    )


def _sweep_table(found: Mapping[str, Rows], size: Size) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for case in _sweep(size):
        tied = _tied(found[case.name])
        keys = ("rms_error", "noise", "ratio")
        middle = [float(np.median([getattr(r, k) for r in tied])) for k in keys]
        shared = 100 * float(np.median([r.n_shared / r.n_superpixels for r in tied]))
        rows.append((case.name, len(tied), shared, *middle, _worst(tied)))
    return Table(
        "One property changed at a time",
        (
            "tract",
            "visits",
            "shared with the reference [%]",
            "error",
            "limit",
            "median ratio",
            "worst ratio",
        ),
        tuple(rows),
        "Visits that overlap the reference; medians over them; errors and limits in nJy. The "
        "limit is that of one bin: it falls as bins grow and the error does not, where scattered "
        "light is narrower than two bins. Crowded fields leave fewer pixels, and halos.",
    )


def _plot(found: Mapping[str, Rows], size: Size) -> Plot:
    names = [case.name for case in _sweep(size)]
    series = {
        "median visit": [(n, float(np.median([r.ratio for r in _tied(found[n])]))) for n in names],
        "worst visit": [(n, _worst(found[n])) for n in names],
    }
    return Plot("Error over the photon limit", "bars", "ratio", "", series, level=1.2)


def _rms(values: Iterable[float]) -> float:
    return float(np.sqrt(np.mean(np.square(list(values)))))


def _tiles_table(overlaps: Sequence[Mapping[str, float]], folds: int) -> Table:
    parts = {
        "before matching": [row["before"] for row in overlaps],
        "after matching": [row["mean"] for row in overlaps],
    }
    rows: list[tuple[Cell, ...]] = [
        (name, len(values), _rms(values), float(np.median(np.abs(values))))
        for name, values in parts.items()
    ]
    return Table(
        "2MASS J tiles of Orion: overlaps left out of the solution and predicted",
        ("", "pairs", "rms [DN]", "median of |mean| [DN]"),
        tuple(rows),
        f"Mean difference of each overlap, which the solution that predicts it has not seen, in "
        f"{folds} turns. Pairs whose two visits nothing else ties are left out.",
    )
