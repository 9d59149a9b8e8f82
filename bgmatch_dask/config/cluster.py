"""Where the work runs."""

from __future__ import annotations

from pydantic import Field

from bgmatch_dask.config.section import Section

__all__ = ("ClusterConfig",)


class ClusterConfig(Section):
    """Where the work runs."""

    scheduler: str | None = None
    """Address of a running Dask scheduler; default: a local cluster of processes."""
    workers: int = Field(default=2, ge=1)
    """Worker processes of the local cluster, one thread each."""
    memory_limit: str = "auto"
    """Memory of one local worker, e.g. `4GB`."""
    dashboard: str = "127.0.0.1:0"
    """Address of the local dashboard (port 0: a free one)."""
