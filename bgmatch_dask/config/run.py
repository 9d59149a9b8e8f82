"""The whole configuration of one run."""

from __future__ import annotations

from pydantic import Field

from bgmatch_dask.config.cluster import ClusterConfig
from bgmatch_dask.config.inputs import InputConfig, TractConfig
from bgmatch_dask.config.science import (
    BackgroundConfig,
    CoaddConfig,
    MatchConfig,
    PerWarpSection,
    ReferenceConfig,
)
from bgmatch_dask.config.section import Section
from bgmatch_dask.config.store import StoreConfig

__all__ = ("RunConfig",)


class RunConfig(Section):
    """Everything that one run needs."""

    run: str = Field(default="main", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Name of the run inside the store."""
    inputs: InputConfig = InputConfig()
    tract: TractConfig = TractConfig()
    store: StoreConfig = StoreConfig()
    background: BackgroundConfig = BackgroundConfig()
    reference: ReferenceConfig = ReferenceConfig()
    match: MatchConfig = MatchConfig()
    per_warp: PerWarpSection = PerWarpSection()
    coadd: CoaddConfig = CoaddConfig()
    cluster: ClusterConfig = ClusterConfig()
