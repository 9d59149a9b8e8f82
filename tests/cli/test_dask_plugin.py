"""``dask bgmatch`` is a command of Dask's, with the same commands below it."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

from click.testing import CliRunner
from dask.cli import _register_command_ep, cli

from bgmatch_dask import __version__

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_dask_bgmatch_is_bgmatch():
    points = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["dask_cli"]
    ((name, value),) = points.items()
    before = dict(cli.commands)
    try:
        cli.commands.pop(name, None)
        _register_command_ep(cli, EntryPoint(name, value, "dask_cli"))
        found = CliRunner().invoke(cli, ["bgmatch", "--version"])
        wrong = CliRunner().invoke(cli, ["bgmatch", "config", "show", "none.yaml"])
        helped = CliRunner().invoke(cli, ["bgmatch", "submit", "--help"])
    finally:
        cli.commands.clear()
        cli.commands.update(before)
    assert (found.exit_code, found.output) == (0, f"bgmatch {__version__}\n")
    assert wrong.exit_code == 2
    assert "dask bgmatch submit" in helped.output
