"""Simulated tracts that are matched in one process each, and held against their truth."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.job import job_config, simulated
from bgmatch_dask.config import load_config
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.report.truth_table import TruthRow, compare_with_truth
from bgmatch_dask.warps.simulation import SimulationConfig

__all__ = ("Case", "Rows", "measure_cases", "measure_tiles")

Rows = tuple[TruthRow, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One tract and what is changed in the settings."""

    name: str
    """Name for people."""
    simulation: SimulationConfig
    """What is simulated."""
    bin_size: int = 128
    """Size of a superpixel [px]."""
    reference: int | None = None
    """Place of the reference among the visits; None leaves the choice to the job."""

    @property
    def pixels(self) -> int:
        """Pixels of the tract times visits."""
        nx, ny = self.simulation.patches
        return nx * ny * self.simulation.patch_size**2 * self.simulation.visits


def measure_cases(cases: Sequence[Case], work: str) -> dict[str, Rows]:
    """Simulate a tract, match it once per case, and compare each with the truth.

    All cases are of one simulation.
    """
    tract = simulated(Path(work), cases[0].simulation, workers=1)
    found = {}
    for number, case in enumerate(cases):
        store = Path(work) / f"accuracy-{tract.name}-{number}.zarr"
        shutil.rmtree(store, ignore_errors=True)
        settings = [f"background.bin_size={case.bin_size}"]
        if case.reference is not None:
            settings.append(f"reference.visit={case.simulation.visit_ids[case.reference]}")
        plan = make_plan(job_config(tract, store, settings))
        run_tract(plan)
        found[case.name] = compare_with_truth(plan.location, plan.config.run, tract)
        shutil.rmtree(store)
    return found


def measure_tiles(tiles: str, work: str, folds: int) -> list[dict[str, float]]:
    """Match real tiles and return each overlap as predicted by solutions that did not see it."""
    store = Path(work) / "tiles.zarr"
    shutil.rmtree(store, ignore_errors=True)
    values = {"inputs": {"paths": [tiles], "profile": "2mass"}, "store": {"url": str(store)}}
    config = load_config(values=values, overrides=[f"match.cross_validation={folds}"])
    summary = run_tract(make_plan(config))
    shutil.rmtree(store)
    return list(summary["cross_validation"]["overlaps"])
