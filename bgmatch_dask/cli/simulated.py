"""Commands that need no data: simulate a tract, and the demonstration."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bgmatch_dask.cli.exits import finish, print_json, reported
from bgmatch_dask.cli.options import Json, Quiet

if TYPE_CHECKING:
    from bgmatch_dask.report.truth_table import TruthRow
    from bgmatch_dask.warps.simulation import SimulationConfig

__all__ = ("demo", "simulate")

Out = Annotated[Path, typer.Argument(help="Folder to write to.")]
Visits = Annotated[int, typer.Option("--visits", min=2, help="Number of visits.")]
Patches = Annotated[str, typer.Option("--patches", help="Patches along x and y, NxM.")]
PatchSize = Annotated[int, typer.Option("--patch-size", min=64, help="Inner size [pixels].")]
Border = Annotated[int, typer.Option("--border", min=0, help="Border of a patch [pixels].")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random numbers.")]
Compressed = Annotated[bool, typer.Option("--compressed", help="Compress the files (GZIP_2).")]
Workers = Annotated[int, typer.Option("--workers", "-w", min=1, help="Processes.")]


def simulate(
    out: Out,
    visits: Visits = 8,
    patches: Patches = "3x3",
    patch_size: PatchSize = 600,
    border: Border = 50,
    seed: Seed = 42,
    compressed: Compressed = False,
    workers: Workers = 2,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write LSST-layout warps of a simulated tract, and the truth beside them."""
    with reported():
        config = replace(
            _simulation(visits, patches, patch_size, border, seed), compressed=compressed
        )
        facts = _simulate(out, config, workers, "spawn", quiet=quiet)
        if json:
            print_json(facts)
        else:
            print(f"{facts['warps']} warps ({facts['bytes'] / 1e6:.0f} MB) in {facts['folder']}")


def demo(
    out: Out = Path("demo-output"),
    visits: Visits = 8,
    patches: Patches = "3x3",
    patch_size: PatchSize = 600,
    border: Border = 50,
    seed: Seed = 42,
    workers: Workers = 2,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Simulate a tract, match it, and compare the result with the truth."""
    with reported():
        from bgmatch_dask.service.worker_template import start_template

        # First of all: it serves the simulation too.
        start = "forkserver" if start_template() else "spawn"

        from bgmatch_dask.cli.jobs import execute
        from bgmatch_dask.config import load_config
        from bgmatch_dask.report.truth_table import compare_with_truth
        from bgmatch_dask.store import Location

        config = _simulation(visits, patches, patch_size, border, seed)
        facts = _simulate(out, config, workers, start, quiet=quiet)
        settings = load_config(
            values={
                "inputs": {"paths": [facts["folder"]], "profile": "lsst"},
                "tract": {"label": "demo"},
                "store": {"url": str(out / "tract.zarr")},
                "cluster": {"workers": workers},
            }
        )
        summary = execute(settings, quiet=quiet)
        rows = compare_with_truth(
            Location.of(settings.store.url, settings.store.options), settings.run, out
        )
        if json:
            print_json({"report": summary["report"], "truth": [_facts(row) for row in rows]})
        else:
            _print_rows(rows, str(summary["unit"]))
            print(f"report: {summary['report']}")
    finish(len(summary["rejected"]))


def _simulation(
    visits: int, patches: str, patch_size: int, border: int, seed: int
) -> SimulationConfig:
    from bgmatch_dask.errors import ConfigError
    from bgmatch_dask.warps.simulation import SimulationConfig

    columns, _, rows = patches.lower().partition("x")
    if not (columns.isdecimal() and rows.isdecimal()):
        raise ConfigError(
            "patches-invalid", f"{patches!r} is not of the form NxM", fix="For example 3x3."
        )
    return SimulationConfig(
        visits=visits,
        patches=(int(columns), int(rows)),
        patch_size=patch_size,
        border=border,
        seed=seed,
    )


def _simulate(
    out: Path, config: SimulationConfig, workers: int, start: str, *, quiet: bool
) -> dict[str, Any]:
    from bgmatch_dask.warps.simulation import simulate_tract

    def tell(done: int, total: int) -> None:
        sys.stderr.write(f"simulate: {done}/{total} warps\n")

    made = simulate_tract(out, config, None if quiet else tell, workers=workers, start=start)
    return {
        "folder": str(made.warps_dir),
        "truth": str(made.truth_path),
        "warps": made.n_warps,
        "bytes": made.n_bytes,
    }


def _facts(row: TruthRow) -> dict[str, Any]:
    return {
        "visit": row.visit,
        "overlaps_reference": row.overlaps_reference,
        "superpixels": row.n_superpixels,
        "rms_before": row.rms_before,
        "rms_error": row.rms_error,
        "noise_limit": row.noise,
        "ratio": row.ratio,
    }


def _print_rows(rows: Sequence[TruthRow], unit: str) -> None:
    print(f"\nestimated - true offset per visit [{unit}]")
    print(f"{'visit':>8} {'sky before':>11} {'error':>8} {'limit':>8} {'ratio':>6}  reference")
    for row in rows:
        tie = "overlaps" if row.overlaps_reference else "tied through other visits"
        print(
            f"{row.visit:>8} {row.rms_before:11.2f} {row.rms_error:8.3f} "
            f"{row.noise:8.3f} {row.ratio:6.2f}  {tie}"
        )
    print("sky before: rms of the true sky difference; limit: photon noise of one visit's mean\n")
