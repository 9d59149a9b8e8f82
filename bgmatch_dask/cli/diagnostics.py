"""The command that shows how good the match of every visit and warp is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bgmatch_dask.cli.exits import print_json, reported
from bgmatch_dask.cli.options import Json, StoreArgument
from bgmatch_dask.cli.products import RunName

__all__ = ("diagnostics",)

_SHOWN = ("ratio", "fit_rms", "cv_rms", "chi2", "coverage")


def diagnostics(
    store: StoreArgument,
    by: Annotated[
        Literal["visit", "patch"], typer.Option("--by", help="A row per visit, or per warp.")
    ] = "visit",
    table: Annotated[
        Path | None, typer.Option("--table", help="File to write: NAME.ecsv or NAME.parquet.")
    ] = None,
    run: RunName = "main",
    json: Json = False,
) -> None:
    """Show the figures of every visit's match and the gate's verdict, or write them to a file."""
    with reported():
        from bgmatch_dask.pipeline.diagnostics import load_diagnostics
        from bgmatch_dask.report.tables import diagnostics_table, write_table
        from bgmatch_dask.store import Location
        from bgmatch_dask.store.versions import current_version

        location = Location.of(store)
        content = load_diagnostics(location, current_version(location, run))
        rows = content["visits" if by == "visit" else "warps"]
        if table is not None:
            write_table(diagnostics_table(rows, content["unit"]), table)
        if json:
            print_json(content)
        elif table is not None:
            print(table)
        else:
            _print_rows(rows, content["unit"])


def _print_rows(rows: Sequence[Mapping[str, Any]], unit: str) -> None:
    width = max([5, *(len(str(row["visit"])) for row in rows)])
    print(f"{'visit':<{width}} patch  gate " + "".join(f"{name:>10}" for name in _SHOWN))
    for row in rows:
        patch = "all" if row.get("patch") is None else str(row["patch"])
        cells = "".join(f"{_number(row.get(name)):>10}" for name in _SHOWN)
        why = ", ".join(row.get("reasons") or ())
        print(f"{row['visit']:<{width}} {patch:>5}  {row['gate']:<5}{cells}  {why}".rstrip())
    print(f"fit_rms and cv_rms in {unit}")


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"
