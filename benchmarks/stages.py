"""Part `stages`: where the time of the whole job goes, beside the floors of this machine."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.floors import decode_floor, decode_one, zarr_read_floor, zarr_write_floor
from benchmarks.job import JobMeasure, cluster, job_config, run_job, simulated, warm_up
from benchmarks.measure import processes, repeat
from benchmarks.progress import Progress
from benchmarks.results import Cell, Check, Figure, PartResult, Plot, Table, spread
from benchmarks.sizes import Size
from benchmarks.storage import measure_storage
from bgmatch_dask.background.offsets import render, render_variance
from bgmatch_dask.background.superpixels import measure_visit
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.results import load_offset
from bgmatch_dask.store import open_store
from bgmatch_dask.warps.lsst import read_lsst_warp

if TYPE_CHECKING:
    from distributed import Client

__all__ = ("run",)

_WORKERS = 2
_TEXT = (
    "Warps in the layout that the Butler writes (FITS, three planes compressed row by row with "
    "GZIP_2) go through the whole job on two workers that are up. Matched warps are written out "
    "here, which a job does only on request. Floors are measured on the same files and arrays: "
    "decoding them with astropy and nothing else; reading or writing the same planes with plain "
    "Zarr in the same codec; copying the arrays in memory."
)


def run(size: Size, work: Path, progress: Progress) -> PartResult:
    """Measure the whole job, each stage, each kernel, and their floors."""
    progress.expect(5 + size.repeats)
    progress.step("simulating warps")
    tract = simulated(work, size.stage_tract)
    files = sorted(str(path) for path in (tract / "warps").glob("*.fits"))
    jobs = []
    with cluster(_WORKERS) as client:
        progress.step("a small job that does not count")
        warm_up(client, work)
        for index in range(size.repeats):
            progress.step(f"the whole job, {index + 1} of {size.repeats}")
            jobs.append(_job(client, tract, work, index))
    progress.step("floors")
    with processes(_WORKERS) as pool:
        floor = decode_floor(pool, files, _WORKERS, size.repeats)
        floors = _floors(pool, jobs[-1], work)
    progress.step("single steps")
    kernels = _kernels(jobs[-1], files[0], size.repeats)
    progress.step("ways to store a warp")
    stored, storage_table, storage_checks = measure_storage(files[0], work, size.repeats)
    whole = [_whole(job) for job in jobs]
    ratio = statistics.median(whole) / statistics.median(floor)
    figures = [
        spread("stages.whole_job", whole, "s", "lower"),
        spread("stages.decode_floor", floor, "s", "lower"),
        spread(
            "stages.whole_over_decode",
            [w / statistics.median(floor) for w in whole],
            "x",
            "lower",
            relative=True,
        ),
        spread("stages.peak_worker", [job.peak for job in jobs], "MB", "lower"),
        *_stage_figures(jobs),
        *stored,
    ]
    floors["ingest"] = (
        "astropy decode + Zarr write",
        statistics.median(floor) + floors["ingest"][1],
    )
    checks = [
        Check(
            "Whole job, coadds included, over astropy's decoding of the same files",
            ratio,
            1.5,
            judged=size.name == "full",
        ),
        *storage_checks,
    ]
    return PartResult(
        "stages",
        "Stages of the job and their floors",
        _TEXT,
        tuple(figures),
        (_stage_table(jobs, floors), _kernel_table(kernels), storage_table),
        _plots(jobs, floors, kernels),
        tuple(checks),
    )


def _job(client: Client, tract: Path, work: Path, index: int) -> JobMeasure:
    store = work / f"stages-{index}.zarr"
    shutil.rmtree(store, ignore_errors=True)
    return run_job(client, job_config(tract, store, ("match.write_warps=true",)))


def _whole(job: JobMeasure) -> float:
    """Return the wall time of the job without the matched warps, which are virtual by default."""
    return job.seconds - job.stages["match"].seconds


def _stage_figures(jobs: list[JobMeasure]) -> list[Figure]:
    names = list(jobs[0].stages)
    return [
        spread(f"stages.{name}", [job.stages[name].seconds for job in jobs], "s", "lower")
        for name in names
    ]


def _floors(pool: Executor, job: JobMeasure, work: Path) -> dict[str, tuple[str, float]]:
    """Return the name and the seconds of the floor of each stage that has one."""
    store = open_store(job.location.url)
    units = [(store.spec.visit_index(t.visit), t.patch) for t in make_plan(job.config).ingest]
    url = job.location.url
    write = zarr_write_floor(pool, url, work, units, _WORKERS)
    read_two = zarr_read_floor(pool, url, units, ("image", "mask"))
    read_all = zarr_read_floor(pool, url, units, ("image", "variance", "mask"))
    patches = len({patch for _, patch in units})
    # A coadd of four planes, about the bytes of four thirds of a warp.
    stack = write / len(units) * patches * 4 / 3
    return {
        "ingest": ("astropy decode + Zarr write", write),
        "difference": ("Zarr read of image and mask", read_two),
        "match": ("Zarr read and write of three planes", read_all + write),
        "coadd": ("Zarr read of three planes, write of the coadd", read_all + stack),
    }


@dataclass(frozen=True, slots=True)
class _Kernel:
    """One step on one warp in this process."""

    name: str
    mpix: float
    floor: str
    share: float


def _kernels(job: JobMeasure, file: str, repeats: int) -> list[_Kernel]:
    """Time single steps on one warp on one thread; floors are astropy and a copy in memory."""
    warp = read_lsst_warp(file)
    store = open_store(job.location.url)
    grid, inner = store.spec.grid, warp.box.intersect(store.spec.grid.box)
    part = warp.crop(inner)
    visit = next(v["visit"] for v in job.summary["visits"] if v["status"] == "matched")
    offset = load_offset(store, job.summary["product"], visit)
    pixels = float(warp.image.size)
    copy = statistics.median(repeat(lambda: np.copy(warp.image), 3 * repeats))
    astropy = statistics.median(repeat(lambda: decode_one(file), repeats))
    steps: list[tuple[str, Callable[[], object], str, float]] = [
        ("FITS decode and checks, three planes", lambda: read_lsst_warp(file), "astropy", astropy),
        (
            "superpixel statistics",
            lambda: measure_visit(part.image, part.mask, inner, grid, 1),
            "copy",
            2 * copy,
        ),
        ("offset drawn and added", lambda: warp.image + render(offset, warp.box), "copy", copy),
        (
            "offset variance drawn and added",
            lambda: warp.variance + render_variance(offset, warp.box),
            "copy",
            copy,
        ),
    ]
    found = []
    for name, call, floor, seconds in steps:
        taken = statistics.median(repeat(call, repeats))
        found.append(_Kernel(name, pixels / taken / 1e6, floor, seconds / taken))
    return found


def _stage_table(jobs: list[JobMeasure], floors: dict[str, tuple[str, float]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, last in jobs[-1].stages.items():
        seconds = statistics.median(job.stages[name].seconds for job in jobs)
        label, floor = floors.get(name, ("", 0.0))
        rows.append(
            (
                name,
                seconds,
                last.units or None,
                jobs[-1].pixels / seconds / 1e6 if last.units else None,
                last.read / 1e6 if last.units else None,
                last.written / 1e6 if last.units else None,
                last.peak if last.units else None,
                floor / seconds if label else None,
                label,
            )
        )
    columns = (
        "stage",
        "s",
        "units",
        "Mpix/s",
        "read MB",
        "written MB",
        "peak MB",
        "floor ÷ stage",
        "floor",
    )
    return Table(
        "Stages on two workers",
        columns,
        tuple(rows),
        "Mpix/s counts the pixels of all warps once. Peak: largest resident memory of a worker "
        "during the stage, with the libraries. Stages without units run in the driver. Floor ÷ "
        "stage: 1 is the floor itself, more is quicker than the floor.",
    )


def _kernel_table(kernels: list[_Kernel]) -> Table:
    rows = tuple((k.name, k.mpix, k.share, k.floor) for k in kernels)
    return Table(
        "Steps on one warp, one thread",
        ("step", "Mpix/s", "floor ÷ step", "floor"),
        rows,
        "Floors: astropy's decoding of the same file, or a copy of the arrays that the step reads.",
    )


def _plots(
    jobs: list[JobMeasure], floors: dict[str, tuple[str, float]], kernels: list[_Kernel]
) -> tuple[Plot, ...]:
    stages: list[tuple[float | str, float]] = [
        (name, statistics.median(job.stages[name].seconds for job in jobs))
        for name in jobs[0].stages
    ]
    marks: list[tuple[float | str, float]] = [(name, floors[name][1]) for name in floors]
    return (
        Plot(
            "Wall time of each stage",
            "bars",
            "s",
            "",
            {"stage": stages, "floor": marks},
            note="The bar of a stage beside the least that its files and arrays cost.",
        ),
        Plot(
            "Steps on one warp, one thread",
            "bars",
            "Mpix/s",
            "",
            {"step": [(k.name, k.mpix) for k in kernels]},
            logarithmic=True,
        ),
    )
