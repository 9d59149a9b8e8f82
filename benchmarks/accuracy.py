"""Part `accuracy`: offsets against the truth, in units of the photon noise, and real tiles."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.job import cluster, job_config, run_job, simulated, warm_up
from benchmarks.measure import ROOT
from benchmarks.results import Cell, Check, PartResult, Plot, Table, spread
from benchmarks.sizes import Size
from bgmatch_dask.config import load_config
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.report.truth_table import TruthRow, compare_with_truth
from bgmatch_dask.warps.simulation import SimulationConfig

if TYPE_CHECKING:
    from distributed import Client

__all__ = ("run",)

_ORION = ROOT.parent / "shared" / "data" / "2mass_orion_J"
_FOLDS = 5
_TEXT = (
    "Simulated tracts with one property changed at a time. The error of a visit is the rms, over "
    "the superpixels that it covers, of estimated − true offset; the limit is the photon noise of "
    "the visit's own superpixel means. A ratio below 1 means that smoothing over superpixels has "
    "averaged noise away. On real tiles there is no truth: overlaps are left out of the solution "
    "in five turns and predicted from the others."
)


def run(size: Size, work: Path) -> PartResult:
    """Sweep properties of the data, then cross-validate on real tiles."""
    base = SimulationConfig(
        visits=6, patches=(2, 2), patch_size=size.sweep_patch, border=size.sweep_patch // 20
    )
    rows: list[tuple[Cell, ...]] = []
    series: dict[str, list[tuple[float | str, float]]] = {"median": [], "worst": []}
    with cluster(2) as client:
        warm_up(client, work)
        default = _rows(client, work, base, 64)
        for name, config, bin_size in _sweeps(base):
            found = default if config == base and bin_size == 64 else None
            row = _line(name, found or _rows(client, work, config, bin_size))
            rows.append(row)
            series["median"].append((name, float(row[4] or 0)))
            series["worst"].append((name, float(row[5] or 0)))
        wide = _rows(client, work, replace(base, patches=(4, 4)), 64)
    growth = _worst(wide) / _worst(default)
    overlap = Table(
        "Visits of the default tract",
        ("visit", "meets the reference", "superpixels", "error", "limit", "ratio"),
        tuple(
            (
                r.visit,
                "yes" if r.overlaps_reference else "no",
                r.n_superpixels,
                r.rms_error,
                r.noise,
                r.ratio,
            )
            for r in default
        ),
        "A visit that does not meet the reference is tied to it through other visits.",
    )
    tables = [
        Table(
            "One property changed at a time",
            ("tract", "visits", "error", "limit", "median ratio", "worst ratio"),
            tuple(rows),
            "Visits that overlap the reference; errors and limits in nJy, medians.",
        ),
        overlap,
    ]
    figures = [
        spread("accuracy.ratio", [r.ratio for r in _tied(default)], "x", "lower", relative=True),
        spread("accuracy.growth_with_tract", [growth], "x", "lower", relative=True),
    ]
    checks = [
        Check("Worst offset error over the photon limit, default tract", _worst(default), 1.2),
        Check("Worst ratio on a tract of four times the area, over the default", growth, 1.1),
    ]
    skipped = {}
    if _ORION.is_dir():
        table, figure = _orion(work)
        tables.append(table)
        figures.append(spread("accuracy.orion_left_out_rms", [figure], "DN", "lower"))
    else:
        skipped["2MASS tiles of Orion"] = f"{_ORION.name} is not beside the repository"
    plot = Plot("Error over the photon limit", "bars", "ratio", "", series, level=1.2)
    return PartResult(
        "accuracy",
        "Distance from the truth",
        _TEXT,
        tuple(figures),
        tuple(tables),
        (plot,),
        tuple(checks),
        skipped,
    )


def _sweeps(base: SimulationConfig) -> Iterable[tuple[str, SimulationConfig, int]]:
    yield "default, bins of 64 px", base, 64
    yield "bins of 32 px", base, 32
    yield "bins of 128 px", base, 128
    yield "a quarter of the depth", replace(base, gain=0.25), 64
    yield "four times the depth", replace(base, gain=4.0), 64
    yield "the same seeing", replace(base, psf_fwhm=(3.6, 3.6)), 64
    yield "seeing from 2.5 to 6 px", replace(base, psf_fwhm=(2.5, 6.0)), 64
    yield (
        "four times the sources",
        replace(base, star_density=4 * base.star_density, galaxy_density=4 * base.galaxy_density),
        64,
    )
    yield "large overlaps", replace(base, pointings="broad"), 64


def _rows(
    client: Client, work: Path, config: SimulationConfig, bin_size: int
) -> tuple[TruthRow, ...]:
    tract = simulated(work, config)
    store = work / "accuracy.zarr"
    shutil.rmtree(store, ignore_errors=True)
    job = run_job(client, job_config(tract, store, (f"background.bin_size={bin_size}",)))
    return compare_with_truth(job.location, job.config.run, tract)


def _tied(rows: Iterable[TruthRow]) -> list[TruthRow]:
    return [row for row in rows if row.overlaps_reference]


def _worst(rows: Iterable[TruthRow]) -> float:
    return max((row.ratio for row in _tied(rows)), default=float("nan"))


def _line(name: str, rows: Iterable[TruthRow]) -> tuple[Cell, ...]:
    tied = _tied(rows)
    middle = [
        float(np.median([getattr(r, k) for r in tied])) for k in ("rms_error", "noise", "ratio")
    ]
    return (name, len(tied), *middle, _worst(tied))


def _orion(work: Path) -> tuple[Table, float]:
    """Return the left-out overlaps of the Orion tiles, and their rms after matching [DN]."""
    store = work / "orion.zarr"
    shutil.rmtree(store, ignore_errors=True)
    values = {
        "inputs": {"paths": [str(_ORION)], "profile": "2mass"},
        "store": {"url": str(store)},
    }
    overrides = [f"match.cross_validation={_FOLDS}"]
    summary = run_tract(make_plan(load_config(values=values, overrides=overrides)))
    overlaps = summary["cross_validation"]["overlaps"]
    before, after = ([row[name] for row in overlaps] for name in ("before", "mean"))
    rms = [float(np.sqrt(np.mean(np.square(part)))) for part in (before, after)]
    middle = [float(np.median(np.abs(part))) for part in (before, after)]
    table = Table(
        "2MASS J tiles of Orion: overlaps left out of the solution and predicted",
        ("", "pairs", "rms [DN]", "median of |mean| [DN]"),
        (
            ("before matching", len(before), rms[0], middle[0]),
            ("after matching", len(after), rms[1], middle[1]),
        ),
        "Mean difference of each overlap, which the solution that predicts it has not seen. Pairs "
        "whose two visits nothing else ties are left out.",
    )
    return table, rms[1]
