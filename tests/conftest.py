"""Fixtures shared by all tests: a small simulated tract, and clusters of real processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from distributed import Client

    from bgmatch_dask.config import RunConfig
    from tests.s3_server import S3Server

SHARED = Path(__file__).parents[2] / "shared"

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``warps/`` of 5 visits on 2 x 2 patches, and their truth."""
    from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract

    folder = tmp_path_factory.mktemp("simulated")
    simulate_tract(folder, SimulationConfig(visits=5, patches=(2, 2), patch_size=256, border=32))
    return folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[Client]:
    """A client of a local cluster of two worker processes."""
    from bgmatch_dask.config import ClusterConfig
    from bgmatch_dask.service.cluster import connect

    with connect(ClusterConfig(workers=2)) as client:
        yield client


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server process on loopback; nothing is set in the environment."""
    from tests.s3_server import serve_s3

    with serve_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The same server, with the environment of a client set for this test."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def job(simulated: Path, tmp_path: Path) -> RunConfig:
    """A job on the simulated tract with a store of its own."""
    return make_job(simulated / "warps", tmp_path / "tract.zarr")


def make_job(inputs: Path, store: Path, *overrides: str, profile: str = "lsst") -> RunConfig:
    """Return the configuration of a job on a folder."""
    from bgmatch_dask.config import load_config

    values = {
        "inputs": {"paths": [str(inputs)], "profile": profile},
        "store": {"url": str(store)},
        "background": {"bin_size": 64},
    }
    return load_config(values=values, overrides=overrides)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the repository; tests that need it are skipped without."""
    if not (SHARED / "data").is_dir():
        pytest.skip("there are no real images beside the repository")
    return SHARED / "data"


@pytest.fixture(scope="session")
def orion(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the tutorial's run on real images was made, and its command."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("orion")
    (folder / "2mass_orion_J").symlink_to(shared_data / "2mass_orion_J")
    command = "bgmatch run --profile 2mass --store orion.zarr 2mass_orion_J/*.fits"
    subprocess.run(
        [sys.executable, "-m", "bgmatch_dask", *command.split()[1:], "--quiet"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=280,
    )
    return folder, command
