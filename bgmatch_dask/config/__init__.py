"""The configuration: one model, every field documented, unknown fields refused.

Values come, weakest first, from the defaults, a YAML or TOML file, and ``--set a.b=value``.
"""

from bgmatch_dask.config.cluster import ClusterConfig
from bgmatch_dask.config.describe import describe_config
from bgmatch_dask.config.inputs import ButlerConfig, InputConfig, TractConfig
from bgmatch_dask.config.job import load_job
from bgmatch_dask.config.read import config_digest, load_config
from bgmatch_dask.config.run import RunConfig
from bgmatch_dask.config.science import (
    BackgroundConfig,
    CoaddConfig,
    MatchConfig,
    PerWarpSection,
    ReferenceConfig,
)
from bgmatch_dask.config.store import StoreConfig

__all__ = (
    "BackgroundConfig",
    "ButlerConfig",
    "ClusterConfig",
    "CoaddConfig",
    "InputConfig",
    "MatchConfig",
    "PerWarpSection",
    "ReferenceConfig",
    "RunConfig",
    "StoreConfig",
    "TractConfig",
    "config_digest",
    "describe_config",
    "load_config",
    "load_job",
)
