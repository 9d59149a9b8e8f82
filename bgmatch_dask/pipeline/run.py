"""The run: all stages in order, and the summary of what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask import __version__
from bgmatch_dask.background.cross_validation import cross_validate
from bgmatch_dask.background.diagnostics import (
    GateLimits,
    VisitDiagnostics,
    diagnose,
    diagnose_patches,
)
from bgmatch_dask.background.offsets import at_superpixels
from bgmatch_dask.background.overlaps import measure_overlaps, overlap_figures
from bgmatch_dask.background.reference import ReferenceChoice
from bgmatch_dask.background.solution import Solution
from bgmatch_dask.background.superpixels import SuperpixelSums
from bgmatch_dask.background.visits import Visit
from bgmatch_dask.config import config_digest
from bgmatch_dask.numerics.one_thread import one_thread
from bgmatch_dask.pipeline import stages
from bgmatch_dask.pipeline.built import match_to_built
from bgmatch_dask.pipeline.collector import loaded_kept
from bgmatch_dask.pipeline.context import RunContext
from bgmatch_dask.pipeline.diagnostics import (
    Row,
    diagnostic_row,
    judge,
    patch_of_superpixels,
    save_diagnostics,
)
from bgmatch_dask.pipeline.engine import Engine, SerialEngine, check_memory
from bgmatch_dask.pipeline.events import Listener
from bgmatch_dask.pipeline.per_warp import per_warp, visit_figures, warp_rows
from bgmatch_dask.pipeline.plan import TractPlan
from bgmatch_dask.pipeline.results import save_summary
from bgmatch_dask.pipeline.resume import with_whole_paths
from bgmatch_dask.pipeline.stages import Ingested, Matching
from bgmatch_dask.pipeline.versions import bring_into_force, kept_summary, open_version
from bgmatch_dask.store import Ledger
from bgmatch_dask.store.commit import commit_run, is_committed, uncommit_run
from bgmatch_dask.store.ledger import WORKING_STAGES, run_names
from bgmatch_dask.store.lock import hold_store
from bgmatch_dask.store.receipt import digest_of
from bgmatch_dask.store.traffic import Written
from bgmatch_dask.store.versions import needs_layout, run_of

__all__ = ("Until", "run_tract")


Until: TypeAlias = Literal["ingest", "offsets", "coadd"]
"""The last thing that a run does."""


def run_tract(
    plan: TractPlan,
    engine: Engine | None = None,
    listeners: Sequence[Listener] = (),
    *,
    until: Until = "coadd",
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
    until
        Stop early: a run that made no coadds is not finished, and the next one goes on from here.

    Returns
    -------
    dict
        The summary, also stored as ``runs/<version>/summary.json`` when the run is finished; of one
        that stopped early, the units, rejected inputs and times. JSON types.

    Raises
    ------
    BgmatchError
        When the job cannot be finished. Bad inputs do not raise; they are in the summary.
    """
    chosen = engine or SerialEngine()
    run = RunContext(plan, Ledger(plan.location, plan.config.run), chosen, tuple(listeners))
    with loaded_kept(), run.told():
        check_memory(chosen, plan.worker_bytes)
        with hold_store(plan.location, f"run {plan.config.run}") as lock:
            run.ledger.guard = lock.check
            return _carry_out(run.with_store(rebin=not _other_products(plan)), until)


def _carry_out(run: RunContext, until: Until) -> dict[str, Any]:
    plan = run.plan
    with run.record("plan"):
        plan.location.write_json(f"runs/{plan.config.run}/plan.json", plan.to_json())
        plan.location.write_json(
            f"runs/{plan.config.run}/config.json", with_whole_paths(plan.config)
        )
    ingested = stages.ingest(run)
    if until == "ingest":
        return _partial(run, ingested)
    choice, sums = stages.reference(run, ingested)
    run = open_version(run, ingested, choice)
    kept = kept_summary(run, ingested)
    if kept is not None:
        bring_into_force(run)
        return kept if until == "coadd" else _partial(run, ingested)
    uncommit_run(plan.location, run.version)
    if plan.config.match.method == "per_warp":
        matching, found = _match_per_warp(run, ingested, choice, sums)
    else:
        matching, found = _match_jointly(run, ingested, choice, sums)
    if until == "offsets":
        return _partial(run, ingested)
    stages.match(run, ingested, matching)
    stages.coadd(run, ingested, matching)
    summary = _summarise(run, ingested, choice) | found | {"timings": dict(run.timings)}
    with run.record("summary"):
        save_summary(plan.location, run.version, summary)
    _commit(run, len(ingested.rejected))
    bring_into_force(run)
    return summary


def _partial(run: RunContext, ingested: Ingested) -> dict[str, Any]:
    """Return what can be told of a run that stops before its products are made."""
    return {
        "run": run.plan.config.run,
        "visits": len({visit for visit, _ in ingested.usable}),
        "units": len(ingested.usable),
        "rejected": [asdict(rejection) for rejection in ingested.rejected],
        "timings": dict(run.timings),
    }


def _other_products(plan: TractPlan) -> bool:
    """Whether other runs of the store are finished, whose products need its layout."""
    names = [name for name in run_names(plan.location) if run_of(name) != plan.config.run]
    return any(is_committed(plan.location, name) for name in names)


def _match_jointly(
    run: RunContext,
    ingested: Ingested,
    choice: ReferenceChoice,
    sums: Mapping[Visit, SuperpixelSums],
) -> tuple[Matching, dict[str, Any]]:
    """Return the offsets of one solution over the tract, and what the summary tells of it."""
    config = run.plan.config.match
    coverage = {visit: part.count > 0 for visit, part in sums.items()}
    differences = stages.difference(run, ingested, choice, coverage)
    solution = stages.solve(run, differences, coverage, choice)
    solution, changes = match_to_built(run, ingested, choice, differences, coverage, solution)
    matching = stages.of_solution(run, solution)
    limits = GateLimits(config.gate_ratio, config.gate_rms)
    diagnostics = diagnose(solution, differences, coverage, limits)
    visits = _visit_table(run, ingested, sums, solution, diagnostics)
    spec = run.plan.spec
    patch_of = patch_of_superpixels(spec.grid, spec.geometry.patches)
    warps = diagnose_patches(solution, differences, coverage, patch_of, limits)
    rows = [diagnostic_row(found, patch) for (_, patch), found in warps.items()]
    left_out = _cross_validated(run, differences, coverage, choice)
    matching = replace(matching, gated=judge(visits, config, matching.reference))
    _save_diagnostics(run, [diagnostic_row(d, None) for d in diagnostics], visits, rows)
    overlaps = measure_overlaps(differences, solution)
    return matching, {
        "visits": visits,
        "unmatched": [],
        "pairs": [asdict(overlap) for overlap in overlaps],
        "overlaps": asdict(overlap_figures(overlaps)),
        **({"cross_validation": left_out} if left_out else {}),
        "solver": {
            "noise factor": solution.noise_factor,
            "slope prior": solution.slope_prior,
            "superpixels per node": solution.pitch,
            "iterations": solution.iterations,
            "components": len(solution.components),
            **({"convergence": list(changes)} if changes else {}),
        },
    }


def _cross_validated(
    run: RunContext,
    differences: Mapping[tuple[Visit, Visit], SuperpixelSums],
    coverage: Mapping[Visit, NDArray[np.bool_]],
    choice: ReferenceChoice,
) -> dict[str, Any]:
    """Return how well overlaps are predicted that took no part, where that is asked for."""
    config = run.plan.config
    if config.match.cross_validation < 1:
        return {}
    with run.stage("cross-validation"), one_thread():
        found = cross_validate(
            differences,
            coverage,
            run.plan.spec.grid,
            choice.visit,
            stages.solve_config(config),
            folds=config.match.cross_validation,
            cost_order=choice.cost_order,
        )
    return {
        "folds": config.match.cross_validation,
        "pairs": len(found.overlaps),
        "untied": len(found.untied),
        "rms_before": found.rms_before,
        "rms": found.rms,
        "overlaps": [asdict(overlap) for overlap in found.overlaps],
    }


def _match_per_warp(
    run: RunContext,
    ingested: Ingested,
    choice: ReferenceChoice,
    sums: Mapping[Visit, SuperpixelSums],
) -> tuple[Matching, dict[str, Any]]:
    """Return the offsets of warps matched one by one, and what the summary tells of them."""
    result = per_warp(run, ingested, str(choice.visit))
    rows = [
        {
            "visit": str(visit),
            **visit_figures(run, ingested, result, str(visit)),
            **_sky_figures(run, ingested, visit, part),
        }
        for visit, part in sums.items()
    ]
    warps = warp_rows(run.plan.config, result)
    gated = judge(warps, run.plan.config.match, result.matching.reference, kind="warp")
    tract = [
        {"measured": None} | row | {"patch": None, "difference_variance": row.get("diff_variance")}
        for row in rows
    ]
    _save_diagnostics(run, tract, rows, warps)
    return replace(result.matching, gated=gated), {
        "visits": rows,
        "unmatched": [asdict(item) for item in result.unmatched],
        "pairs": [],
        "overlaps": asdict(overlap_figures(())),
        "solver": {"method": "per_warp"},
    }


def _save_diagnostics(
    run: RunContext, tract: Sequence[Row], visits: Sequence[Row], warps: Sequence[Row]
) -> None:
    """Store both tables; the gate of a visit is that of the table of visits."""
    for row, visit in zip(tract, visits, strict=True):
        row["gate"] = visit["gate"]
    with run.record("diagnostics"):
        plan = run.plan
        save_diagnostics(plan.location, run.version, plan.spec.unit, tract, warps)


def _commit(run: RunContext, n_rejected: int) -> None:
    """Mark the run as finished; written last, so that a reader can trust what lies before."""
    stages_done = {
        stage: receipts
        for stage in dict.fromkeys((*run.ledger.stages(), *WORKING_STAGES))
        if (receipts := run.ledger.read(stage))
    }
    written = [item for units in stages_done.values() for r in units.values() for item in r.written]
    run.ledger.guard()
    commit_run(
        run.plan.location,
        run.version,
        {
            "version": __version__,
            "config": config_digest(run.plan.config),
            "units": {
                stage: sum(stage != "layout" or needs_layout(u, run.version) for u in units)
                for stage, units in stages_done.items()
            },
            "rejected": n_rejected,
            "objects": len(written),
            "products": _products(written),
        },
    )


def _products(written: Sequence[Written]) -> dict[str, str]:
    """Return one checksum over the checksums of all objects, by their top group."""
    groups = Counter(item.name.split("/")[0] for item in written)
    return {
        group: digest_of(sorted(w.row for w in written if w.name.split("/")[0] == group))
        for group in sorted(groups)
    }


def _summarise(run: RunContext, ingested: Ingested, choice: ReferenceChoice) -> dict[str, Any]:
    plan = run.plan
    return {
        "schema": 1,
        "run": plan.config.run,
        "product": run.version,
        "tract": plan.spec.geometry.tract,
        "band": plan.spec.geometry.band,
        "unit": plan.spec.unit,
        "version": __version__,
        "config": plan.config.model_dump(mode="json"),
        "plan": plan.to_json(),
        "reference": {
            "visit": str(choice.visit),
            "forced": choice.forced,
            "chooser": choice.chooser,
            "candidates": [asdict(candidate) for candidate in choice.candidates],
        },
        "rejected": [asdict(rejection) for rejection in ingested.rejected],
    }


def _visit_table(
    run: RunContext,
    ingested: Ingested,
    sums: Mapping[Visit, SuperpixelSums],
    solution: Solution,
    diagnostics: Sequence[VisitDiagnostics],
) -> list[dict[str, Any]]:
    loose = {
        visit for part in solution.components if not part.has_reference for visit in part.visits
    }
    table = []
    for found in diagnostics:
        part, label = sums[found.visit], str(found.visit)
        row: dict[str, Any] = {
            **asdict(found),
            "visit": label,
            "status": "disconnected" if found.visit in loose else "matched",
            "diff_variance": found.difference_variance,
            "measured": found.coverage,
            **_sky_figures(run, ingested, found.visit, part),
            "offset_median": _offset_median(solution, found.visit, part),
        }
        if found.visit == solution.reference:
            row["status"] = "reference"
        table.append(row)
    return table


def _sky_figures(
    run: RunContext, ingested: Ingested, visit: Visit, sums: SuperpixelSums
) -> dict[str, Any]:
    """Return what the table of visits tells of the visit alone."""
    label = str(visit)
    return {
        "sky_level": float(np.median(sums.mean[sums.count > 0])) if sums.count.any() else None,
        "sky_sigma": _sky_sigma(ingested, label),
        "n_patches": sum(v == label for v, _ in ingested.usable),
        "coverage": _tract_share(run, sums),
    }


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
    known = [variance for variance in variances if np.isfinite(variance)]
    # A visit whose good pixels are all masked has no sky to measure.
    return float(np.sqrt(np.median(known))) if known else float("nan")
