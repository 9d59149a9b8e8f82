"""The command that lists the versions of a run's products, and removes one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bgmatch_dask.cli.exits import print_json, reported
from bgmatch_dask.cli.options import Json, StoreArgument
from bgmatch_dask.cli.products import RunName

__all__ = ("versions",)


def versions(
    store: StoreArgument,
    run: RunName = "main",
    remove: Annotated[
        int | None, typer.Option("--remove", help="Number of a version that is not in force.")
    ] = None,
    json: Json = False,
) -> None:
    """List the versions of a run's products: which is in force, which are kept beside it."""
    with reported():
        found = _versions(store, run, remove)
        if json:
            print_json(found)
            return
        for item in found:
            state = "in force" if item["current"] else "kept" if item["committed"] else "unfinished"
            print(f"{item['number']:>4}  {item['name']:<20}  {state}")


def _versions(store: str, run: str, remove: int | None) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from bgmatch_dask.errors import StoreError
    from bgmatch_dask.store import Location, read_spec
    from bgmatch_dask.store.lock import hold_store
    from bgmatch_dask.store.versions import list_versions, remove_version, run_of

    location, run = Location.of(store), run_of(run)
    read_spec(location)
    if remove is not None:
        with hold_store(location, "versions --remove"):
            gone = [v for v in list_versions(location, run) if v.number == remove and not v.current]
            if not gone:
                raise StoreError(
                    "version-unknown",
                    f"Run {run!r} has no version {remove} that is not in force",
                    where=location.url,
                    fix="`bgmatch versions STORE` lists them.",
                )
            remove_version(location, gone[0].name)
    return [asdict(version) for version in list_versions(location, run)]
