"""Where and how pixels are kept."""

from __future__ import annotations

from pydantic import Field

from bgmatch_dask.config.section import Section

__all__ = ("StoreConfig",)


class StoreConfig(Section):
    """Where and how pixels are kept."""

    url: str = "tract.zarr"
    """Place of the store: a path, `file://…` or `s3://…`."""
    chunk: int = Field(default=1000, ge=16)
    """Target size of a chunk [pixels]; the nearest exact divisor of the plane is used."""
