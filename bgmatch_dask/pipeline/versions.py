"""Which version of its products a run makes, and how it comes into force."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from bgmatch_dask.background.reference import ReferenceChoice
from bgmatch_dask.errors import StoreError
from bgmatch_dask.pipeline.basis import code_version, settings_of
from bgmatch_dask.pipeline.context import RunContext
from bgmatch_dask.pipeline.events import Note
from bgmatch_dask.pipeline.results import load_summary, plain_json
from bgmatch_dask.pipeline.resume import with_whole_paths
from bgmatch_dask.pipeline.stages import Ingested
from bgmatch_dask.store import Ledger
from bgmatch_dask.store.commit import is_committed, load_commit
from bgmatch_dask.store.receipt import digest_of
from bgmatch_dask.store.versions import (
    current_version,
    describe_version,
    point_to,
    prune_versions,
    version_for,
)

__all__ = ("bring_into_force", "kept_summary", "open_version")

_SECTIONS = ("background", "reference", "match", "per_warp", "coadd")
_STAGES = ("difference", "built", "per_warp", "match", "coadd")


def open_version(run: RunContext, ingested: Ingested, choice: ReferenceChoice) -> RunContext:
    """Return the run on the version that its products belong to.

    Products depend on the settings, the code, what lies in the store of every warp, and the choice
    of the reference. A committed version of other products is not touched.
    """
    plan = run.plan
    contents = {f"{v}/{p}": ingested.receipts[f"{v}/{p}"].content for v, p in ingested.usable}
    settings = settings_of(plan.config, *_SECTIONS)
    basis = digest_of([settings, code_version(), contents, asdict(choice)])
    current = current_version(plan.location, plan.config.run)
    name = version_for(plan.location, plan.config.run, basis)
    earlier = None
    if name != current:
        earlier = Ledger(plan.location, current)
        run.emit(Note(f"{name} is made beside {current}, which stays until it is finished"))
    run = replace(run, ledger=Ledger(plan.location, name, run.ledger.guard), earlier=earlier)
    with run.record("version"):
        facts = {"basis": basis, "config": with_whole_paths(plan.config)}
        describe_version(plan.location, name, facts)
    return run


def kept_summary(run: RunContext, ingested: Ingested) -> dict[str, Any] | None:
    """Return the summary of a version that is finished already; None when work is left to do."""
    location, name = run.plan.location, run.version
    if not is_committed(location, name):
        return None
    try:
        units = dict(load_commit(location, name)["units"])
        summary = load_summary(location, name)
    except StoreError as error:
        if error.code != "commit-corrupt":
            raise
        return None
    rejected = plain_json([asdict(rejection) for rejection in ingested.rejected])
    if summary["rejected"] != rejected:
        return None
    if any(len(run.ledger.read(stage)) < count for stage, count in units.items()):
        return None
    for stage in _STAGES:
        run.tell_kept(stage)
    return summary


def bring_into_force(run: RunContext) -> None:
    """Point to the version of a finished run, and remove those that are not to be kept."""
    location, name = run.plan.location, run.plan.config.run
    run.ledger.guard()
    if current_version(location, name) != run.version:
        point_to(location, run.version)
    prune_versions(location, name, run.plan.config.store.keep_versions)
