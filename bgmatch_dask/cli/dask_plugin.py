"""``dask bgmatch …``: the same commands inside Dask's own command line."""

from __future__ import annotations

import click

__all__ = ("bgmatch",)


@click.command(
    "bgmatch",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="Make the sky backgrounds of many visits of one tract agree.",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def bgmatch(words: tuple[str, ...]) -> None:
    """Do what the command ``bgmatch`` does."""
    from bgmatch_dask.cli.main import app

    app(args=list(words), prog_name="dask bgmatch")
