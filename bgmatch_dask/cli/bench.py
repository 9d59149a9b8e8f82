"""The benchmark, which lives in the source tree and not in the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from bgmatch_dask.cli.exits import reported
from bgmatch_dask.cli.options import Json, Quiet

__all__ = ("bench",)


def bench(
    full: Annotated[bool, typer.Option("--full", help="Thorough sizes: tens of minutes.")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", hidden=True)] = False,
    parts: Annotated[
        str | None,
        typer.Option("--parts", help="Of stages,scaling,peers,accuracy,kernels; default: all."),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option("--compare", help="An earlier bench.json to compare with.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for records and report.")] = Path(
        "bench-output"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Keep the simulated tracts.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure speed, memory, scaling and accuracy on this machine, beside other programs.

    Needs the source tree. Quick sizes take about three minutes.
    """
    with reported():
        root = _source_tree()
    flags = {"--full": full, "--tiny": tiny, "--keep": keep, "--json": json, "--quiet": quiet}
    values = {"--parts": parts, "--compare": compare, "--out": out}
    command = [sys.executable, "-m", "benchmarks"]
    command += [name for name, wanted in flags.items() if wanted]
    for name, value in values.items():
        command += [name, str(value)] if value is not None else []
    path = os.pathsep.join(p for p in (str(root), os.environ.get("PYTHONPATH", "")) if p)
    raise typer.Exit(subprocess.call(command, env=os.environ | {"PYTHONPATH": path}))


def _source_tree() -> Path:
    """Return the folder that holds `benchmarks`.

    Raises
    ------
    ConfigError
        ``bench-missing`` in an installation without the source tree.
    """
    from bgmatch_dask.errors import ConfigError

    installed = Path(__file__).parents[2]
    for root in (installed, Path.cwd()):
        if (root / "benchmarks" / "command.py").is_file():
            return root
    raise ConfigError(
        "bench-missing",
        "The benchmark is part of the source tree, not of the installed package",
        where=str(installed),
        fix="Clone the repository, `pip install -e .[bench]` in it, and run `bgmatch bench` there.",
    )
