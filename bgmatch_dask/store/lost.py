"""Objects that a receipt says were written and that are gone: Zarr takes them for empty ones."""

from __future__ import annotations

from functools import lru_cache

from bgmatch_dask.store.ledger import Ledger
from bgmatch_dask.store.location import Location

__all__ = ("was_written",)


def was_written(location: Location, kind: str, name: str) -> bool:
    """Whether a receipt says that a chunk or shard was written.

    Parameters
    ----------
    location
        Place of the store.
    kind
        Kind of its warps.
    name
        Object that is not there.
    """
    parts = name.split("/")
    warps = parts[0] in {kind, "superpixels"} or (parts[0] == "match" and parts[2] == "warps")
    if warps:
        # Most units that are not there never were, and have no sums either.
        visit, patch = parts[parts.index("c") + 1 :][:2]
        if not location.exists(f"superpixels/{kind}/units/c/{visit}/{patch}/0/0/0"):
            return False
    owner = _owner(parts, kind)
    if owner is None:
        return False
    ledger = Ledger(location, owner[0])
    segments = tuple(location.list(ledger.prefix(owner[1])))
    return name in _names(location, *owner, segments)


def _owner(parts: list[str], kind: str) -> tuple[str, str] | None:
    """Return the version and the stage whose receipts speak of an object, None if none does."""
    if parts[0] == "coadd":
        return parts[1].rpartition("_")[0], "coadd"
    if parts[0] == "match":
        return parts[1], "match" if parts[2] == "warps" else "solve"
    return ("main", "ingest") if parts[0] == kind else None


@lru_cache(maxsize=8)
def _names(location: Location, run: str, stage: str, segments: tuple[str, ...]) -> frozenset[str]:
    del segments
    receipts = Ledger(location, run).read(stage).values()
    return frozenset(item.name for receipt in receipts for item in receipt.written)
