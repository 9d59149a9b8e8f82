"""Where and how pixels are kept."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from bgmatch_dask.config.section import Section

__all__ = ("StoreConfig",)


class StoreConfig(Section):
    """Where and how pixels are kept."""

    url: str = "tract.zarr"
    """Place of the store: a path, `file://…` or `s3://…`."""
    options: dict[str, str] = Field(default_factory=dict)
    """Options of a remote store, e.g. `endpoint`, `region`, `allow_http`; never secrets."""
    receipts_every: float = Field(default=5.0, gt=0)
    """Receipts are written down at least this often [s]: what a crash can lose."""
    keep_versions: int = Field(default=1, ge=0)
    """Earlier versions of the products that a finished run keeps beside its newest ones."""
    chunk: int = Field(default=1000, ge=16)
    """Target size of a chunk [pixels]; the nearest exact divisor of the plane is used."""
    noise_step: float | None = Field(default=None, gt=0, le=0.5)
    """Round stored pixels to this share of the sky noise, e.g. 0.06; null: keep every bit."""

    @field_validator("options", mode="before")
    @classmethod
    def _flags_as_text(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {k: str(v).lower() if isinstance(v, bool) else v for k, v in value.items()}
