"""One undisturbed run, with which every disturbed one is compared."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.store import Location
from tests.chaos.tract import products, simulate, tiny_job


@pytest.fixture(scope="session")
def warps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input warps of the tiny tract."""
    return simulate(tmp_path_factory.mktemp("chaos"))


@pytest.fixture(scope="session")
def calm(warps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an undisturbed run; never written to."""
    folder = tmp_path_factory.mktemp("calm") / "tract.zarr"
    run_tract(make_plan(tiny_job(warps, folder)))
    return folder


@pytest.fixture(scope="session")
def calm_bytes(calm: Path) -> dict[str, bytes]:
    """Its products."""
    return products(Location.of(str(calm)))


@pytest.fixture
def copy(calm: Path, tmp_path: Path) -> Location:
    """A copy of the undisturbed store, to be damaged."""
    shutil.copytree(calm, tmp_path / "tract.zarr")
    return Location.of(str(tmp_path / "tract.zarr"))


@pytest.fixture
def as_calm(calm_bytes: dict[str, bytes]) -> Callable[[Location], None]:
    """Assert that the products of a store are those of the undisturbed run."""

    def check(place: Location) -> None:
        found = products(place)
        assert found.keys() == calm_bytes.keys()
        assert [name for name in found if found[name] != calm_bytes[name]] == []

    return check
