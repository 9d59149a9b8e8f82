"""Commands that plan and do the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bgmatch_dask.cli.exits import finish, print_json, reported
from bgmatch_dask.cli.options import (
    ButlerRepo,
    Collections,
    ConfigFile,
    Inputs,
    Json,
    Overrides,
    Profile,
    Quiet,
    Reference,
    Run,
    Scheduler,
    Store,
    Where,
    Workers,
    build_config,
)

if TYPE_CHECKING:
    from bgmatch_dask.config import RunConfig
    from bgmatch_dask.pipeline.run import Until

__all__ = ("execute", "plan", "print_rejected", "print_summary", "run")


def plan(
    inputs: Inputs = None,
    profile: Profile = None,
    store: Store = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    butler: ButlerRepo = None,
    collections: Collections = None,
    where: Where = None,
    json: Json = False,
) -> None:
    """Show what a run would do: inputs, tract, units, bytes. Nothing is written."""
    with reported():
        from bgmatch_dask.pipeline.plan import make_plan

        made = make_plan(
            build_config(
                config_file=config,
                overrides=overrides,
                inputs=inputs,
                profile=profile,
                store=store,
                butler=(butler, collections, where),
            )
        )
        facts = made.to_json()
        if json:
            print_json(facts)
        else:
            _print_plan(facts)
    finish(len(made.rejected))


def _print_plan(facts: dict[str, Any]) -> None:
    patches = facts["patches"]
    print(f"tract     {facts['tract']} {facts['band']} [{facts['unit']}]")
    print(
        f"patches   {patches['nx']} x {patches['ny']}, inner {patches['inner'][0]} x "
        f"{patches['inner'][1]} px, border {patches['border']} px"
    )
    print(f"visits    {len(facts['visits'])}")
    print(f"units     {facts['units']} (visit, patch)")
    print(f"read      {facts['input_bytes'] / 1e9:.2f} GB")
    print(f"store     up to {facts['store_bytes'] / 1e9:.2f} GB at {facts['store']}")
    print(f"memory    about {facts['worker_bytes'] / 1e9:.2f} GB per worker")
    if facts["passed_over"]:
        print(f"passed    {facts['passed_over']} file(s) that the profile does not read")
    print_rejected(facts["rejected"])


def print_rejected(items: Sequence[Mapping[str, str]]) -> None:
    """Print the inputs that were left out."""
    for item in items:
        print(f"rejected  [{item['code']}] {item['source']}: {item['detail']}")


def run(
    inputs: Inputs = None,
    profile: Profile = None,
    store: Store = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    run_name: Run = None,
    reference: Reference = None,
    butler: ButlerRepo = None,
    collections: Collections = None,
    where: Where = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Do the whole job: ingest, match and coadd one tract, and write the report.

    Run the same command again after an interruption: what is done is not done again.
    """
    with reported():
        settings = build_config(
            config_file=config,
            overrides=overrides,
            inputs=inputs,
            profile=profile,
            store=store,
            scheduler=scheduler,
            workers=workers,
            run=run_name,
            reference=reference,
            butler=(butler, collections, where),
        )
        summary = execute(settings, quiet=quiet)
        if json:
            print_json(summary)
        else:
            print_summary(summary)
    finish(len(summary["rejected"]))


def execute(settings: RunConfig, *, quiet: bool, until: Until = "coadd") -> dict[str, Any]:
    """Run a job on its cluster with progress, see `bgmatch_dask.service.work.carry_out`."""
    from contextlib import nullcontext

    from bgmatch_dask.service.worker_template import compile_ahead, start_template

    local = settings.cluster.kind == "local"
    if local:
        # First of all: workers get ready while this process imports and plans.
        start_template()

    from bgmatch_dask.pipeline.plan import make_plan
    from bgmatch_dask.service.cluster import connect
    from bgmatch_dask.service.progress import progress_listener
    from bgmatch_dask.service.work import carry_out

    made = make_plan(settings)
    bar = nullcontext() if quiet else progress_listener()
    with bar as listener, connect(settings.cluster) as client:
        if local:
            compile_ahead()
        return carry_out(made, client, () if listener is None else (listener,), until)


def print_summary(summary: dict[str, Any]) -> None:
    """Print what people want to know of a finished run."""
    figures = summary["overlaps"]
    visits = summary["visits"]
    matched = sum(v["status"] in {"matched", "reference"} for v in visits)
    print(f"reference {summary['reference']['visit']}")
    print(f"visits    {matched} of {len(visits)} matched")
    if figures["pairs"]:
        print(
            f"overlaps  rms of {figures['pairs']} mean differences: "
            f"{figures['rms_before']:.4g} -> {figures['rms_after']:.4g} {summary['unit']}"
        )
    for visit in visits:
        if visit["status"] not in {"matched", "reference"} or visit["gate"] == "warn":
            print(f"look at   visit {visit['visit']}: {visit['status']}, gate {visit['gate']}")
    print_rejected(summary["rejected"])
    print(f"time      {sum(summary['timings'].values()):.1f} s")
    print(f"report    {summary['report']}")
