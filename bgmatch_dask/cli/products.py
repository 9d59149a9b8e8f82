"""Commands that show and take out what a run made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bgmatch_dask.cli.exits import print_json, reported
from bgmatch_dask.cli.options import Json, StoreArgument

__all__ = ("export", "info", "report")

RUN_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(@[1-9][0-9]{0,8})?"


def _plain_name(name: str) -> str:
    if not re.fullmatch(RUN_NAME, name):
        raise typer.BadParameter("a run's name has letters, digits, '.', '_' and '-' only")
    return name


RunName = Annotated[
    str,
    typer.Option("--run", callback=_plain_name, help="Run of the store; main@2 is its version 2."),
]
Product = Literal["offset", "background", "matched", "coadd", "unmatched-coadd", "nimage"]


def report(store: StoreArgument, run: RunName = "main", json: Json = False) -> None:
    """Write the HTML report of a finished run again and say where it is."""
    with reported():
        from bgmatch_dask.report.html import write_report
        from bgmatch_dask.store import Location

        path = write_report(Location.of(store), run)
        if json:
            print_json({"report": path, "run": run})
        else:
            print(path)


def export(
    store: StoreArgument,
    out: Annotated[Path, typer.Argument(help="Folder for the FITS files.")],
    product: Annotated[Product, typer.Option("--product", help="What to write.")],
    visit: Annotated[str | None, typer.Option("--visit", help="One visit; default all.")] = None,
    patch: Annotated[int | None, typer.Option("--patch", help="One patch; default all.")] = None,
    whole_tract: Annotated[
        bool, typer.Option("--whole-tract", help="One file over the whole tract.")
    ] = False,
    onto: Annotated[
        list[str] | None,
        typer.Option("--onto", help="Offset on the pixels of this image; may be repeated."),
    ] = None,
    surface_brightness: Annotated[
        bool,
        typer.Option(
            "--surface-brightness",
            help="Pixels of the --onto images hold surface brightness, not flux.",
        ),
    ] = False,
    run: RunName = "main",
    json: Json = False,
) -> None:
    """Write FITS files with a correct WCS. Offsets are to be added to their visit."""
    if onto and (product != "offset" or visit is None or patch is not None or whole_tract):
        raise typer.BadParameter("--onto goes with --product offset and --visit, and nothing else")
    with reported():
        from bgmatch_dask.report.export import export_fits
        from bgmatch_dask.report.frames import export_onto
        from bgmatch_dask.store import Location

        location = Location.of(store)
        if onto and visit is not None:
            paths = export_onto(
                location, run, onto, out, visit, flux_per_pixel=not surface_brightness
            )
        else:
            paths = export_fits(
                location, run, product, out, visit=visit, patch=patch, whole_tract=whole_tract
            )
        if json:
            print_json({"files": [str(path) for path in paths]})
        else:
            for path in paths:
                print(path)


def info(store: StoreArgument, run: RunName = "main", json: Json = False) -> None:
    """Show what a store holds and how its run ended."""
    with reported():
        facts = _facts(store, run)
        if json:
            print_json(facts)
        else:
            _print_info(facts)


def _facts(url: str, run: str) -> dict[str, Any]:
    from bgmatch_dask.pipeline.results import load_summary
    from bgmatch_dask.store import Location, read_spec
    from bgmatch_dask.store.commit import is_committed
    from bgmatch_dask.store.versions import current_version

    location = Location.of(url)
    version = current_version(location, run)
    spec = read_spec(location)
    patches = spec.geometry.patches
    facts: dict[str, Any] = {
        "store": location.url,
        "tract": spec.geometry.tract,
        "band": spec.geometry.band,
        "unit": spec.unit,
        "visits": list(spec.visits),
        "patches": [patches.nx, patches.ny],
        "bin_size": spec.bin_size,
        "run": run,
        "version": version,
        "finished": is_committed(location, version),
    }
    if facts["finished"]:
        summary = load_summary(location, version)
        keys = ("reference", "overlaps", "rejected", "timings")
        facts |= {key: summary[key] for key in keys}
    return facts


def _print_info(facts: dict[str, Any]) -> None:
    print(f"tract      {facts['tract']} {facts['band']} [{facts['unit']}]")
    print(f"visits     {len(facts['visits'])}")
    print(f"patches    {facts['patches'][0]} x {facts['patches'][1]}")
    if not facts["finished"]:
        print(f"run        {facts['run']}: not finished; run the same command again to continue")
        return
    overlaps = facts["overlaps"]
    print(f"run        {facts['run']}: finished")
    print(f"reference  {facts['reference']['visit']}")
    if overlaps["pairs"]:
        print(
            f"overlaps   rms of {overlaps['pairs']} mean differences: "
            f"{overlaps['rms_before']:.4g} -> {overlaps['rms_after']:.4g} {facts['unit']}"
        )
    print(f"rejected   {len(facts['rejected'])}")
