"""Writing a simulated tract, patch by patch, so that disk bounds its size and memory does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from bgmatch_dask.errors import ConfigError
from bgmatch_dask.warps.lsst_writing import write_lsst_warp
from bgmatch_dask.warps.simulation.config import SimulationConfig
from bgmatch_dask.warps.simulation.exposure import GROWTH, expose
from bgmatch_dask.warps.simulation.truth import (
    TRUTH_FILE,
    SimulationTruth,
    draw_truth,
    load_truth,
    save_truth,
    true_diffuse,
)

__all__ = ("SimulationSummary", "simulate_tract")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class SimulationSummary:
    """What a simulation wrote."""

    warps_dir: Path
    """Directory of the warps."""
    truth_path: Path
    """The record of what went in."""
    n_warps: int
    """Files written."""
    n_empty: int
    """Units (visit, patch) without data, for which there is no file."""
    n_bytes: int
    """Bytes of the files."""


def simulate_tract(
    out_dir: str | os.PathLike[str],
    config: SimulationConfig | None = None,
    progress: Progress | None = None,
    *,
    workers: int = 1,
    start: str = "spawn",
) -> SimulationSummary:
    """Write the warps ``warps/warp_v<visit>_p<patch>.fits`` and ``truth.json``.

    Parameters
    ----------
    out_dir
        Directory, made when missing.
    config
        The simulation; default a small tract for a demonstration.
    progress
        Called after each patch with the number of units done and of all units.
    workers
        Processes; the files are the same for any number. More than one needs an importable
        ``__main__``.
    start
        How they start, see `multiprocessing.get_context`.

    Returns
    -------
    SimulationSummary
        Paths and counts.

    Raises
    ------
    ConfigError
        ``simulation-exists`` when the directory holds another simulation.
    """
    truth = draw_truth(config or SimulationConfig())
    _check_free(out_dir, truth)
    warps_dir = Path(out_dir) / "warps"
    warps_dir.mkdir(parents=True, exist_ok=True)
    # The truth is complete before the first warp, so that an interrupted run is understood.
    truth_path = save_truth(truth, out_dir)
    n_warps = n_bytes = done = 0
    n_visits = len(truth.visits)
    total = n_visits * truth.config.geometry.patches.n_patches
    for sizes in _patches(truth, warps_dir, workers, start):
        n_warps += len(sizes)
        n_bytes += sum(sizes)
        done += n_visits
        if progress is not None:
            progress(done, total)
    return SimulationSummary(warps_dir, truth_path, n_warps, total - n_warps, n_bytes)


def _check_free(out_dir: str | os.PathLike[str], truth: SimulationTruth) -> None:
    """Refuse to mix the warps of two simulations; repeating the same one is fine."""
    if (Path(out_dir) / TRUTH_FILE).exists() and load_truth(out_dir) != truth:
        raise ConfigError(
            "simulation-exists",
            "The directory holds a simulation with other settings",
            where=os.fspath(out_dir),
            fix="Choose another directory, or remove this one.",
        )


def _patches(
    truth: SimulationTruth, warps_dir: Path, workers: int, start: str
) -> Iterator[list[int]]:
    patches = range(truth.config.geometry.patches.n_patches)
    if workers <= 1:
        for patch in patches:
            yield _simulate_patch(truth, warps_dir, patch)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context(start)) as pool:
        jobs = [pool.submit(_simulate_patch, truth, warps_dir, patch) for patch in patches]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            # After Ctrl-C, which processes may not hear, nobody waits for the other patches.
            pool.shutdown(cancel_futures=True)


def _simulate_patch(truth: SimulationTruth, warps_dir: Path, patch: int) -> list[int]:
    """Write all warps of a patch and return their sizes in bytes."""
    config, geometry = truth.config, truth.config.geometry
    box = geometry.patches.outer_box(patch)
    diffuse = true_diffuse(truth, box.grow(GROWTH))
    sizes = []
    for visit in truth.visits:
        warp = expose(config, visit, box, diffuse)
        path = warps_dir / f"warp_v{visit.visit}_p{patch}.fits"
        if warp is None:
            path.unlink(missing_ok=True)
            continue
        write_lsst_warp(
            path,
            warp,
            geometry.wcs_cards,
            visit=visit.visit,
            tract=config.tract,
            patch=patch,
            band=config.band,
            compressed=config.compressed,
            cards=(
                ("EXPTIME", 30.0),
                ("MJD-AVG", 61000.0 + truth.visits.index(visit)),
                ("SEEING", round(visit.psf_fwhm * config.pixel_scale, 4)),
            ),
        )
        sizes.append(path.stat().st_size)
    return sizes
