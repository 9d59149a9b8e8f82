"""Options that several commands share, and the configuration they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bgmatch_dask.config import RunConfig

__all__ = (
    "ButlerRepo",
    "Collections",
    "ConfigFile",
    "Inputs",
    "Json",
    "Overrides",
    "Profile",
    "Quiet",
    "Reference",
    "Run",
    "Scheduler",
    "Store",
    "StoreArgument",
    "Where",
    "Workers",
    "build_config",
)

Inputs = Annotated[
    list[str] | None, typer.Argument(help="Input files, folders or patterns.", show_default=False)
]
StoreArgument = Annotated[str, typer.Argument(help="Path or URL of the store.")]
Profile = Annotated[
    str | None,
    typer.Option("--profile", "-p", help="Reader profile: lsst, 2mass, sdss, generic or a file."),
]
Store = Annotated[str | None, typer.Option("--store", "-s", help="Path or URL of the store.")]
ConfigFile = Annotated[
    str | None, typer.Option("--config", "-c", help="Configuration file (YAML or TOML).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one field, e.g. background.bin_size=128."),
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", help="Address of a running Dask scheduler.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", "-w", help="Processes of the local cluster.")
]
Run = Annotated[str | None, typer.Option("--run", help="Name of the run inside the store.")]
Reference = Annotated[
    str | None, typer.Option("--reference", help="Visit to use as the reference.")
]
ButlerRepo = Annotated[
    str | None, typer.Option("--butler", help="Butler repository whose warps are the inputs.")
]
Collections = Annotated[
    str | None, typer.Option("--collections", help="Collections of the Butler, with commas.")
]
Where = Annotated[
    str | None, typer.Option("--where", help="Query, e.g. \"tract = 9813 AND band = 'i'\".")
]
Json = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def build_config(
    *,
    config_file: str | None,
    overrides: list[str] | None,
    inputs: list[str] | None = None,
    profile: str | None = None,
    store: str | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    run: str | None = None,
    reference: str | None = None,
    butler: tuple[str | None, str | None, str | None] = (None, None, None),
) -> RunConfig:
    """Return the configuration of a command line; options win over the file.

    Raises
    ------
    ConfigError
        See `bgmatch_dask.config.load_config`.
    """
    from bgmatch_dask.config import load_config

    values: dict[str, Any] = {
        "run": run,
        "inputs": {
            "paths": inputs or None,
            "profile": profile,
            "source": "butler" if butler[0] else None,
            "butler": dict(zip(("repo", "collections", "where"), butler, strict=True)),
        },
        "store": {"url": store},
        "cluster": {"scheduler": scheduler, "workers": workers},
        "reference": {"visit": reference},
    }
    return load_config(config_file, overrides or (), values)
