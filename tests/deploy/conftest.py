from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def small_tract(tmp_path_factory):
    """A folder with ``warps/`` of 3 visits on 2 patches, for recipes."""
    from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract

    folder = tmp_path_factory.mktemp("small")
    simulate_tract(folder, SimulationConfig(visits=3, patches=(2, 1), patch_size=192, border=24))
    return folder
