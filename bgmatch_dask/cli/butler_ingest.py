"""The command that takes results back to a Butler repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bgmatch_dask.cli.exits import print_json, reported
from bgmatch_dask.cli.options import Json, StoreArgument
from bgmatch_dask.cli.products import RunName

__all__ = ("butler_ingest",)


def butler_ingest(
    store: StoreArgument,
    out: Annotated[Path, typer.Argument(help="Folder for the FITS files and the tables.")],
    butler: Annotated[str, typer.Option("--butler", help="Butler repository.")],
    collection: Annotated[
        str, typer.Option("--collection", help="RUN collection, made when missing.")
    ],
    outputs: Annotated[
        str,
        typer.Option("--outputs", help="Dataset types, with commas; default: offsets and coadd."),
    ] = "bgmatch_offset,bgmatch_coadd",
    transfer: Annotated[
        Literal["copy", "direct", "move"],
        typer.Option("--transfer", help="How the repository takes the files over."),
    ] = "copy",
    tables_only: Annotated[
        bool,
        typer.Option("--tables-only", help="Write files, tables and a script; ingest nothing."),
    ] = False,
    run: RunName = "main",
    json: Json = False,
) -> None:
    """Write results as datasets and ingest them into a Butler repository.

    Tables and a script ingest.sh for use inside LSST's stack are written beside the files.
    """
    with reported():
        from bgmatch_dask.report.butler_outputs import (
            export_datasets,
            put_datasets,
            write_ingest_tables,
        )
        from bgmatch_dask.store import Location

        names = [name.strip() for name in outputs.split(",") if name.strip()]
        datasets = export_datasets(Location.of(store), run, out, names)
        tables = write_ingest_tables(datasets, butler, collection, out)
        ingested = 0 if tables_only else put_datasets(datasets, butler, collection, transfer)
        if json:
            print_json(
                {
                    "files": [str(item.path) for item in datasets],
                    "tables": [str(path) for path in tables],
                    "ingested": ingested,
                }
            )
        else:
            print(f"files     {len(datasets)}")
            print(f"ingested  {ingested} into {collection}")
            print(f"script    {tables[-1]}")
