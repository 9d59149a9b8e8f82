"""The run: all stages in order, and the summary of what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bgmatch_dask import __version__
from bgmatch_dask.background.diagnostics import GateLimits, VisitDiagnostics, diagnose
from bgmatch_dask.background.offsets import at_superpixels
from bgmatch_dask.background.overlaps import Overlap, measure_overlaps, overlap_figures
from bgmatch_dask.background.reference import ReferenceChoice
from bgmatch_dask.background.solution import Solution
from bgmatch_dask.background.superpixels import SuperpixelSums
from bgmatch_dask.background.visits import Visit
from bgmatch_dask.pipeline import stages
from bgmatch_dask.pipeline.context import RunContext
from bgmatch_dask.pipeline.engine import Engine, SerialEngine
from bgmatch_dask.pipeline.events import Listener
from bgmatch_dask.pipeline.plan import TractPlan
from bgmatch_dask.pipeline.results import save_summary
from bgmatch_dask.pipeline.stages import Ingested
from bgmatch_dask.store import Ledger

__all__ = ("run_tract",)


def run_tract(
    plan: TractPlan, engine: Engine | None = None, listeners: Sequence[Listener] = ()
) -> dict[str, Any]:
    """Carry out a plan: ingest, match and coadd.

    Units with a receipt of an earlier run that still holds are not done again.

    Parameters
    ----------
    plan
        From `bgmatch_dask.pipeline.plan.make_plan`.
    engine
        Where units run; default: in this process.
    listeners
        Called with every event.

    Returns
    -------
    dict
        The summary, also stored as ``runs/<run>/summary.json``; JSON types.

    Raises
    ------
    BgmatchError
        When the job cannot be finished. Bad inputs do not raise; they are in the summary.
    """
    ledger = Ledger(plan.location, plan.config.run)
    run = RunContext(plan, ledger, engine or SerialEngine(), tuple(listeners))
    _uncommit(run)
    ingested = stages.ingest(run)
    plan.location.write_json(f"runs/{plan.config.run}/plan.json", plan.to_json())
    choice, sums = stages.reference(run, ingested)
    coverage = {visit: part.count > 0 for visit, part in sums.items()}
    differences = stages.difference(run, ingested, choice, coverage)
    solution = stages.solve(run, differences, coverage, choice)
    limits = GateLimits(plan.config.match.gate_ratio, plan.config.match.gate_rms)
    diagnostics = diagnose(solution, differences, coverage, limits)
    stages.match(run, ingested, solution)
    stages.coadd(run, ingested, solution, _unmatched_visits(solution))
    overlaps = measure_overlaps(differences, solution)
    summary = _summarise(run, ingested, choice, sums, solution, diagnostics, overlaps)
    save_summary(plan.location, plan.config.run, summary)
    _commit(run)
    return summary


def _unmatched_visits(solution: Solution) -> list[str]:
    """Return the visits without a tie to the reference: their level is arbitrary."""
    return [
        str(visit)
        for component in solution.components
        if not component.has_reference
        for visit in component.visits
    ]


def _uncommit(run: RunContext) -> None:
    """Take back the mark of an earlier run of this name, because its products may now change."""
    name = f"runs/{run.plan.config.run}/commit.json"
    if run.plan.location.exists(name):
        run.plan.location.delete(name)


def _commit(run: RunContext) -> None:
    """Mark the run as finished; written last, so that a reader can trust what lies before."""
    config = run.plan.config
    run.plan.location.write_json(
        f"runs/{config.run}/commit.json",
        {"run": config.run, "version": __version__, "units": len(run.plan.ingest)},
    )


def _summarise(
    run: RunContext,
    ingested: Ingested,
    choice: ReferenceChoice,
    sums: Mapping[Visit, SuperpixelSums],
    solution: Solution,
    diagnostics: Sequence[VisitDiagnostics],
    overlaps: Sequence[Overlap],
) -> dict[str, Any]:
    plan = run.plan
    return {
        "schema": 1,
        "run": plan.config.run,
        "tract": plan.spec.geometry.tract,
        "band": plan.spec.geometry.band,
        "unit": plan.spec.unit,
        "version": __version__,
        "config": plan.config.model_dump(mode="json"),
        "plan": plan.to_json(),
        "reference": {
            "visit": str(choice.visit),
            "forced": choice.forced,
            "candidates": [asdict(candidate) for candidate in choice.candidates],
        },
        "visits": _visit_table(run, ingested, sums, solution, diagnostics),
        "pairs": [asdict(overlap) for overlap in overlaps],
        "overlaps": asdict(overlap_figures(overlaps)),
        "solver": {
            "noise factor": solution.noise_factor,
            "slope prior": solution.slope_prior,
            "superpixels per node": solution.pitch,
            "iterations": solution.iterations,
            "components": len(solution.components),
        },
        "rejected": [asdict(rejection) for rejection in ingested.rejected],
        "timings": dict(run.timings),
    }


def _visit_table(
    run: RunContext,
    ingested: Ingested,
    sums: Mapping[Visit, SuperpixelSums],
    solution: Solution,
    diagnostics: Sequence[VisitDiagnostics],
) -> list[dict[str, Any]]:
    loose = set(_unmatched_visits(solution))
    table = []
    for found in diagnostics:
        part, label = sums[found.visit], str(found.visit)
        row: dict[str, Any] = {
            **asdict(found),
            "visit": label,
            "status": "disconnected" if label in loose else "matched",
            "diff_variance": found.difference_variance,
            "measured": found.coverage,
            "sky_level": float(np.median(part.mean[part.count > 0])) if part.count.any() else None,
            "sky_sigma": _sky_sigma(ingested, label),
            "n_patches": sum(v == label for v, _ in ingested.usable),
            "coverage": _tract_share(run, part),
            "offset_median": _offset_median(solution, found.visit, part),
        }
        if found.visit == solution.reference:
            row["status"] = "reference"
        table.append(row)
    return table


def _tract_share(run: RunContext, sums: SuperpixelSums) -> float:
    box = run.plan.spec.geometry.patches.tract_box
    return float(sums.n_good.sum()) / (box.width * box.height)


def _offset_median(solution: Solution, visit: Visit, sums: SuperpixelSums) -> float | None:
    if visit not in solution.offsets or not sums.count.any():
        return None
    return float(np.median(at_superpixels(solution.offsets[visit])[sums.count > 0]))


def _sky_sigma(ingested: Ingested, visit: str) -> float:
    variances = [
        float(ingested.receipts[f"{v}/{patch}"].figures["sky_variance"])
        for v, patch in ingested.usable
        if v == visit
    ]
    return float(np.sqrt(np.nanmedian(variances)))
