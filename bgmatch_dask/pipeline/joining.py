"""Later nights: inputs that join what a store holds already, on its tract."""

from __future__ import annotations

from collections.abc import Iterable

from bgmatch_dask.errors import StoreError
from bgmatch_dask.pipeline.basis import differing_fields
from bgmatch_dask.pipeline.plan import TractPlan
from bgmatch_dask.store import Ledger
from bgmatch_dask.store.receipt import Basis, Receipt, digest_of

__all__ = ("known_units", "place_of")


def place_of(unit: str) -> tuple[str, int]:
    """Return the visit and the patch of a unit of ingest."""
    visit, _, patch = unit.rpartition("/")
    return visit, int(patch)


def known_units(plan: TractPlan, ledger: Ledger) -> dict[str, Receipt]:
    """Return the receipts of units that are in the store and not among the inputs of a plan.

    Raises
    ------
    StoreError
        ``join-settings`` when they were ingested with other settings than the new ones will be.
    """
    planned = {task.unit for task in plan.ingest}
    known = {u: r for u, r in ledger.read("ingest").items() if u not in planned}
    _refuse_other_settings(plan, ledger, known.values())
    return known


def _refuse_other_settings(plan: TractPlan, ledger: Ledger, known: Iterable[Receipt]) -> None:
    now = digest_of(plan.settings)
    others = {Basis.parse(receipt.digest).settings for receipt in known} - {now}
    if others:
        changes = differing_fields(ledger, min(others), now)
        raise StoreError(
            "join-settings",
            f"The store was made with other settings{f': {changes}' if changes else ''}",
            where=plan.location.url,
            fix="Use those settings, or run again with all inputs and without inputs.join.",
        )
