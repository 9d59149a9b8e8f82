"""The command ``bgmatch``: every command imports what it needs when it runs."""

from __future__ import annotations

import atexit
import gc

import typer

from bgmatch_dask import __version__
from bgmatch_dask.cli import (
    bench,
    butler_ingest,
    diagnostics,
    doctor,
    durable,
    jobs,
    match_warps,
    products,
    settings,
    simulated,
    submitted,
    versions,
)

__all__ = ("app",)

app = typer.Typer(
    name="bgmatch",
    help="Make the sky backgrounds of many visits of one tract agree.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        print(f"bgmatch {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Make the sky backgrounds of many visits of one tract agree.

    Exit codes: 0 all done; 1 failure; 2 wrong usage or configuration; 3 done, but some inputs
    were rejected; 4 `verify` found damage; 130 interrupted, 143 ended by the system (run the same
    command again to continue).
    """
    del version
    # Python's last search for garbage takes a second where Dask, astropy and numba are loaded.
    atexit.register(gc.freeze)


app.command("demo")(simulated.demo)
app.command("simulate")(simulated.simulate)
app.command("plan")(jobs.plan)
app.command("run")(jobs.run)
for _command in (
    durable.resume,
    durable.ingest,
    durable.verify,
    submitted.submit,
    submitted.jobs,
    submitted.status,
    submitted.watch,
    submitted.logs,
    submitted.cancel,
    doctor.doctor,
):
    app.command(_command.__name__)(_command)
app.command("match-warps")(match_warps.match_warps)
app.command("report")(products.report)
app.command("export")(products.export)
app.command("butler-ingest")(butler_ingest.butler_ingest)
app.command("info")(products.info)
app.command("versions")(versions.versions)
app.command("bench")(bench.bench)
app.command("diagnostics")(diagnostics.diagnostics)
app.add_typer(settings.app, name="config")
