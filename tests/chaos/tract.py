"""A tract so small that it can be destroyed many times, and its bytes when nothing goes wrong."""

from __future__ import annotations

from pathlib import Path

from bgmatch_dask.config import RunConfig
from bgmatch_dask.store import Location
from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract
from tests.conftest import make_job

PRODUCTS = ("zarr.json", "direct", "superpixels", "match", "coadd")
"""What has to be the same to the byte, whatever happened."""


def simulate(folder: Path) -> Path:
    """Write warps of 4 visits on 2 x 1 patches of 96 pixels."""
    simulate_tract(folder, SimulationConfig(visits=4, patches=(2, 1), patch_size=96, border=16))
    return folder / "warps"


def tiny_job(warps: Path, store: Path | str) -> RunConfig:
    """Return the job on these warps; matched warps are written, so that every stage works."""
    return make_job(
        warps,
        store,
        *("background.bin_size=32", "match.write_warps=true", "store.receipts_every=0.02"),
    )


def products(place: Location) -> dict[str, bytes]:
    """Return every object that a run makes for people, by name."""
    names = [n for prefix in PRODUCTS[1:] for n in place.list(prefix)]
    return {name: place.read_bytes(name) for name in ["zarr.json", *names]}
