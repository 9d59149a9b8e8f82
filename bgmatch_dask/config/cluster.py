"""Where the work runs."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from bgmatch_dask.config.section import Section

__all__ = ("ClusterConfig",)


class ClusterConfig(Section):
    """Where the work runs."""

    kind: Literal["local", "address", "slurm", "kubernetes", "gateway"] = "local"
    """`local` processes, a scheduler at an `address`, `slurm`, `kubernetes` or Dask `gateway`."""
    scheduler: str | None = None
    """Address of the scheduler (which makes the kind `address`), or of the gateway."""
    workers: int = Field(default=2, ge=1)
    """Worker processes, one thread each; with `max_workers`, the fewest."""
    max_workers: int | None = Field(default=None, ge=1)
    """Scale between `workers` and this as work comes and goes; default: always `workers`."""
    memory_limit: str = "auto"
    """Memory of one worker, e.g. `4GB`."""
    dashboard: str = "127.0.0.1:0"
    """Address of the local dashboard (port 0: a free one)."""
    tls_ca: str | None = None
    """Certificate of the authority that signed the cluster's certificates (PEM file)."""
    tls_cert: str | None = None
    """Own certificate (PEM file); set together with `tls_ca` and `tls_key`."""
    tls_key: str | None = None
    """Key of the own certificate (PEM file)."""
    tracts_at_once: int = Field(default=4, ge=1)
    """Tracts of one job that share the cluster at the same time."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of SLURMCluster, KubeCluster or the gateway's new_cluster."""

    @model_validator(mode="before")
    @classmethod
    def _address_by_scheduler(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("scheduler") and "kind" not in data:
            return {**data, "kind": "address"}
        return data

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.max_workers is not None and self.max_workers < self.workers:
            raise ValueError("max_workers is smaller than workers")
        if len({part is None for part in (self.tls_ca, self.tls_cert, self.tls_key)}) > 1:
            raise ValueError("tls_ca, tls_cert and tls_key go together: set all, or none")
        return self
