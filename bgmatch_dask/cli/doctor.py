"""The command that finds what is wrong before a job does."""

from __future__ import annotations

from typing import Annotated

import typer

from bgmatch_dask.cli.exits import FAILURE, print_json, reported
from bgmatch_dask.cli.options import Json, Overrides, Scheduler, Store

__all__ = ("doctor",)


def doctor(
    job: Annotated[str | None, typer.Argument(help="Job file; default: the defaults.")] = None,
    overrides: Overrides = None,
    store: Store = None,
    scheduler: Scheduler = None,
    json: Json = False,
) -> None:
    """Check versions, memory, ports, rights, clocks and certificates; say what to fix."""
    with reported():
        from bgmatch_dask.config import load_job
        from bgmatch_dask.config.read import load_config
        from bgmatch_dask.service.doctor import examine

        values = {"cluster": {"scheduler": scheduler}, "store": {"url": store}}
        items = overrides or ()
        configs = load_job(job, items, values) if job else (load_config(None, items, values),)
        found = []
        for config in configs:
            for check in examine(config):
                found.append(check)
                if not json:
                    print(f"{check.verdict:<7} {check.name}: {check.says}")
                    if check.fix:
                        print(f"        fix: {check.fix}")
        wrong = sum(check.verdict == "wrong" for check in found)
        if json:
            print_json({"healthy": not wrong, "checks": [check.to_json() for check in found]})
        elif not wrong:
            print("all is well")
    if wrong:
        raise typer.Exit(FAILURE)
