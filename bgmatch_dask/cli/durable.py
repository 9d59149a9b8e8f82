"""Commands that go on, check and mend: resume, verify, ingest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bgmatch_dask.cli import submitted
from bgmatch_dask.cli.exits import DAMAGED, finish, print_json, reported
from bgmatch_dask.cli.jobs import execute, print_rejected, print_summary
from bgmatch_dask.cli.options import (
    ConfigFile,
    Inputs,
    Json,
    Overrides,
    Profile,
    Quiet,
    Run,
    Scheduler,
    Store,
    StoreArgument,
    Workers,
    build_config,
)

if TYPE_CHECKING:
    from bgmatch_dask.config import RunConfig

__all__ = ("ingest", "resume", "verify")

Target = Annotated[
    str | None,
    typer.Argument(help="Store or configuration file: goes on here. A job: goes on by itself."),
]
Tls = Annotated[
    str | None, typer.Option("--config", "-c", help="Configuration with the cluster of a job.")
]


def resume(
    target: Target = None,
    run: Run = None,
    store: Store = None,
    overrides: Overrides = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    config: Tls = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a run or a job; what is done stays done, and what is done again is told why.

    Give a store or a configuration file to go on here, or a job that was submitted.
    """
    if target is None or not _is_place(target):
        submitted.resume(target, store, scheduler, config, json)
        return
    with reported():
        settings = _of_target(target, run, overrides, scheduler, workers)
        summary = execute(settings, quiet=quiet)
        if json:
            print_json(summary)
        else:
            print_summary(summary)
    finish(len(summary["rejected"]))


def _is_place(target: str) -> bool:
    """Whether a word is a store or a file, and not the name of a job."""
    return "://" in target or target.endswith(".zarr") or Path(target).exists()


def _of_target(
    target: str,
    run: str | None,
    overrides: list[str] | None,
    scheduler: str | None = None,
    workers: int | None = None,
) -> RunConfig:
    if Path(target).suffix.lower() in {".yaml", ".yml", ".toml"} and Path(target).is_file():
        return build_config(
            config_file=target, overrides=overrides, run=run, scheduler=scheduler, workers=workers
        )
    return _stored(target, run, overrides, scheduler, workers)


def _stored(
    store: str,
    run: str | None,
    overrides: list[str] | None,
    scheduler: str | None = None,
    workers: int | None = None,
) -> RunConfig:
    """Return the configuration that a store keeps of a run, with what the command line adds."""
    from bgmatch_dask.config import load_config
    from bgmatch_dask.pipeline.resume import stored_config
    from bgmatch_dask.store import Location

    values = stored_config(Location.of(store), run or "main").model_dump()
    values["cluster"] |= {
        key: value
        for key, value in (("scheduler", scheduler), ("workers", workers))
        if value is not None
    }
    return load_config(None, overrides or (), values)


def verify(
    store: StoreArgument,
    repair: Annotated[
        bool, typer.Option("--repair", help="Do again what is damaged, and check once more.")
    ] = False,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check every object of a store against its receipt; exits with 4 when it is damaged."""
    with reported():
        from bgmatch_dask.pipeline.verify import repair_store, verify_store
        from bgmatch_dask.store import Location

        location = Location.of(store)
        found = verify_store(location)
        facts: dict[str, Any] = found.to_json()
        after = found
        if repair and found.damages:

            def carry_out(settings: RunConfig) -> None:
                changes = {} if workers is None else {"workers": workers}
                cluster = settings.cluster.model_copy(update=changes)
                execute(settings.model_copy(update={"cluster": cluster}), quiet=quiet)

            after = repair_store(location, found, carry_out)
            facts["after"] = after.to_json()
        if json:
            print_json(facts)
        else:
            _print_verification(facts)
    if after.damages:
        raise typer.Exit(DAMAGED)


def _print_verification(facts: dict[str, Any]) -> None:
    print(f"checked   {facts['objects']} objects, {facts['bytes'] / 1e9:.3f} GB")
    for item in facts["damages"]:
        unit = f" ({item['stage']} {item['unit']})" if item["unit"] else ""
        print(f"damaged   [{item['code']}] {item['name']}{unit}")
    units = len(facts["redo"])
    if "after" in facts:
        left = len(facts["after"]["damages"])
        print(f"repaired  {units} unit(s) done again, {left} damage(s) left")
    elif facts["damages"]:
        print(f"to redo   {units} unit(s): bgmatch verify --repair STORE")
    else:
        print("sound     every object is what its receipt says")


def ingest(
    inputs: Inputs = None,
    add: Annotated[
        bool,
        typer.Option("--add", help="Join what the store holds, and solve the offsets again."),
    ] = False,
    profile: Profile = None,
    store: Store = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    run: Run = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put inputs into a store; with --add, later nights join a tract that is there.

    `bgmatch resume STORE` makes the matched warps and coadds afterwards.
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
            run=run,
        )
        if add:
            settings = _joining(settings, run, overrides, scheduler, workers)
        summary = execute(settings, quiet=quiet, until="offsets" if add else "ingest")
        if json:
            print_json(summary)
        else:
            _print_ingest(summary, add=add)
    finish(len(summary["rejected"]))


def _joining(
    wanted: RunConfig,
    run: str | None,
    overrides: list[str] | None,
    scheduler: str | None,
    workers: int | None,
) -> RunConfig:
    """Return the configuration of the store's run with the new inputs, to join what is there."""
    from bgmatch_dask.store import Location

    place = Location.of(wanted.store.url, wanted.store.options).url
    stored = _stored(place, run, overrides, scheduler, workers)
    inputs = stored.inputs.model_copy(update={"paths": wanted.inputs.paths, "join": True})
    return stored.model_copy(update={"inputs": inputs})


def _print_ingest(summary: dict[str, Any], *, add: bool) -> None:
    print(f"visits    {summary['visits']}")
    print(f"units     {summary['units']} with usable pixels")
    print_rejected(summary["rejected"])
    if add:
        print("offsets   solved again; bgmatch resume STORE makes the coadds")
