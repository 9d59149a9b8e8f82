"""Commands about the configuration."""

from __future__ import annotations

from typing import Annotated

import typer

from bgmatch_dask.cli.exits import print_json, reported
from bgmatch_dask.cli.options import Json, Overrides

__all__ = ("app",)

app = typer.Typer(help="Show or check a configuration.", no_args_is_help=True)

File = Annotated[str | None, typer.Argument(help="Configuration file; default: only the defaults.")]


@app.command()
def show(file: File = None, overrides: Overrides = None, json: Json = False) -> None:
    """Print the complete configuration, each field with its meaning."""
    with reported():
        from bgmatch_dask.config import describe_config, load_config

        config = load_config(file, overrides or ())
        if json:
            print_json(config.model_dump(mode="json"))
        else:
            print(describe_config(config), end="")


@app.command()
def validate(
    file: Annotated[str, typer.Argument(help="Configuration file.")],
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Check a configuration and say what is wrong with it."""
    with reported():
        from bgmatch_dask.config import load_config

        load_config(file, overrides or ())
        if json:
            print_json({"file": file, "valid": True})
        else:
            print(f"{file}: valid")
