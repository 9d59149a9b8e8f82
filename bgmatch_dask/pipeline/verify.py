"""Check every object of a store against its receipt, and do again what is damaged."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bgmatch_dask.config import RunConfig
from bgmatch_dask.errors import StoreError
from bgmatch_dask.pipeline.context import recover_layout
from bgmatch_dask.pipeline.resume import version_config
from bgmatch_dask.store import Ledger, Location
from bgmatch_dask.store.commit import is_committed, load_commit, uncommit_run
from bgmatch_dask.store.ledger import SHARED_STAGES, WORKING_STAGES, ledgers
from bgmatch_dask.store.lock import hold_store
from bgmatch_dask.store.receipt import Receipt
from bgmatch_dask.store.traffic import Written, checksum
from bgmatch_dask.store.versions import (
    current_version,
    list_versions,
    point_to,
    pointer_fault,
    pointer_name,
    remove_version,
    run_of,
)

__all__ = ("Damage", "Verification", "repair_store", "verify_store")

_READERS = 4
"""Objects that are read at the same time."""

_PARTIAL = re.compile(r"#\d+$|\.partial$")
"""Names of files that a writer of a local disk had not finished when it was killed."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing in a store that is not as it should be."""

    code: str
    """``object-missing``, ``object-truncated``, ``object-changed``, ``receipts-corrupt``,
    ``receipts-missing``, ``commit-corrupt``, ``pointer-missing`` or ``leftover``."""
    name: str
    """The object."""
    run: str = ""
    """Run or version that it belongs to; empty for what all runs share."""
    stage: str = ""
    """Stage that wrote it."""
    unit: str = ""
    """Unit that has to be done again; empty where that is not known."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of a store found."""

    objects: int
    """Objects that were compared with their receipts."""
    n_bytes: int
    """Bytes that their receipts promise."""
    damages: tuple[Damage, ...]
    """What is wrong, by name."""
    expected: dict[str, Written] = field(repr=False)
    """Every object as its newest receipt tells it."""

    @property
    def redo(self) -> tuple[tuple[str, str, str], ...]:
        """(run, stage, unit) of what has to be done again."""
        found = {(d.run, d.stage, d.unit) for d in self.damages if d.unit}
        return tuple(sorted(found))

    def to_json(self) -> dict[str, Any]:
        """Return JSON types."""
        return {
            "objects": self.objects,
            "bytes": self.n_bytes,
            "damages": [asdict(damage) for damage in self.damages],
            "redo": [list(item) for item in self.redo],
        }


@dataclass(frozen=True, slots=True)
class _Owned:
    """An object, and the unit that wrote it last."""

    item: Written
    run: str
    stage: str
    receipt: Receipt


def verify_store(location: Location) -> Verification:
    """Compare every object with its receipt; nothing is changed.

    Parameters
    ----------
    location
        Place of the store.

    Raises
    ------
    StoreError
        ``store-missing`` when there are no receipts at all, ``store-read`` when it cannot be
        read.
    """
    owned: dict[str, _Owned] = {}
    damages: list[Damage] = []
    for ledger in ledgers(location):
        for stage in ledger.stages():
            run = "" if stage in SHARED_STAGES else ledger.run
            receipts, errors = ledger.read_sound(stage)
            damages += [Damage("receipts-corrupt", name, run, stage) for name in errors]
            _own(owned, run, stage, receipts.values())
        damages += _check_commit(ledger)
        damages += _check_pointer(ledger)
    if not owned and not damages:
        raise StoreError(
            "store-missing",
            "There is no store with receipts",
            where=location.url,
            fix="Check the path, or make the store with `bgmatch run`.",
        )
    with ThreadPoolExecutor(_READERS) as pool:
        codes = pool.map(lambda found: _compare(location, found.item), owned.values())
        for found, code in zip(owned.values(), codes, strict=True):
            if code:
                unit = found.receipt.unit
                damages.append(Damage(code, found.item.name, found.run, found.stage, unit))
    damages += [Damage("leftover", name) for name in _leftovers(location)]
    unique = sorted(set(damages), key=lambda d: (d.name, d.code))
    items = {name: found.item for name, found in owned.items()}
    return Verification(len(items), sum(i.size for i in items.values()), tuple(unique), items)


def _own(owned: dict[str, _Owned], run: str, stage: str, receipts: Iterable[Receipt]) -> None:
    for receipt in receipts:
        for item in receipt.written:
            before = owned.get(item.name)
            if before is None or before.receipt.started <= receipt.started:
                owned[item.name] = _Owned(item, run, stage, receipt)


def _compare(location: Location, item: Written) -> str:
    """Return what is wrong with an object; empty when it is as its receipt says."""
    try:
        data = location.read_bytes(item.name)
    except StoreError as error:
        if error.code != "object-missing":
            raise
        return "object-missing"
    if len(data) != item.size:
        return "object-truncated" if len(data) < item.size else "object-changed"
    return "" if checksum(data) == item.checksum else "object-changed"


def _check_commit(ledger: Ledger) -> Iterator[Damage]:
    location, run = ledger.location, ledger.run
    if not is_committed(location, run):
        return
    name = f"runs/{run}/commit.json"
    try:
        mark = load_commit(location, run)
    except StoreError:
        yield Damage("commit-corrupt", name, run)
        return
    for stage, count in dict(mark.get("units", {})).items():
        if stage in WORKING_STAGES and not _is_current(location, run):
            continue  # The work of the version in force has taken its place.
        receipts, errors = ledger.read_sound(stage)
        if len(receipts) < count and not errors:
            yield Damage("receipts-missing", name, run, stage)


def _is_current(location: Location, version: str) -> bool:
    return any(v.current and v.name == version for v in list_versions(location, run_of(version)))


def _check_pointer(ledger: Ledger) -> Iterator[Damage]:
    run = ledger.run
    code = pointer_fault(ledger.location, run) if run == run_of(run) else ""
    if code:
        yield Damage(code, pointer_name(run), run)


def _leftovers(location: Location) -> Iterator[str]:
    top = location.local_path
    if top is None:
        return
    for folder, _, names in os.walk(top):
        for name in names:
            if _PARTIAL.search(name):
                yield str((Path(folder) / name).relative_to(top))


def repair_store(
    location: Location, found: Verification, carry_out: Callable[[RunConfig], object]
) -> Verification:
    """Do again what a check found damaged, and check once more.

    Parameters
    ----------
    location
        Place of the store.
    found
        From `verify_store`.
    carry_out
        Carries out the run of a configuration, which does what has no receipt.

    Raises
    ------
    StoreError
        ``config-corrupt`` or ``run-unknown`` when the store no longer tells how it was made.
    """
    with hold_store(location, "verify --repair"):
        _point_again(location, found)
        versions = _to_do_again(location, found)
        configs = [version_config(location, version) for version in versions]
        lost = _forget(location, found)
        for version in versions:
            uncommit_run(location, version)
    for config in configs:
        paths = (*config.inputs.paths, *lost) if config.inputs.join else config.inputs.paths
        inputs = config.inputs.model_copy(update={"paths": tuple(dict.fromkeys(paths))})
        carry_out(config.model_copy(update={"inputs": inputs}))
    return verify_store(location)


def _point_again(location: Location, found: Verification) -> None:
    """Let runs whose pointer is lost point to their newest finished version."""
    for damage in found.damages:
        if _is_pointer(damage):
            finished = [v.name for v in list_versions(location, damage.run) if v.committed]
            point_to(location, finished[-1] if finished else damage.run)


def _to_do_again(location: Location, found: Verification) -> list[str]:
    """Return the versions in force of which something is damaged; remove earlier such versions.

    An earlier version is kept for looking back: to make it again would take the place of the
    newer one.
    """
    damages = [d for d in found.damages if d.code != "leftover" and not _is_pointer(d)]
    every = dict.fromkeys(run_of(ledger.run) for ledger in ledgers(location))
    wanted: list[str] = []
    for run in every:
        current = current_version(location, run)
        mine = {
            current if d.stage in WORKING_STAGES else d.run
            for d in damages
            if d.run and run_of(d.run) == run
        }
        if current in mine or any(not damage.run for damage in damages):
            wanted.append(current)
        for version in mine - {current}:
            remove_version(location, version)
    return wanted


def _forget(location: Location, found: Verification) -> list[str]:
    """Delete what is damaged and the receipts that speak of it; return inputs to read again."""
    lost: list[str] = []
    for ledger in ledgers(location):
        for stage in ledger.stages():
            ledger.discard_damaged(stage)
            shared = stage in SHARED_STAGES
            units = {u for r, s, u in found.redo if s == stage and (shared or r == ledger.run)}
            receipts = ledger.read(stage)
            if stage == "ingest":
                lost += [i.name for u in units if u in receipts for i in receipts[u].inputs]
            # The layout is written again from its own receipt, which holds the order of visits.
            if stage != "layout" and units & receipts.keys():
                ledger.drop(stage, units)
    for damage in found.damages:
        _delete(location, damage)
    if any(damage.stage == "layout" for damage in found.damages):
        recover_layout(ledgers(location)[0])
    return lost


def _delete(location: Location, damage: Damage) -> None:
    if damage.code == "leftover" and location.local_path is not None:
        (location.local_path / damage.name).unlink(missing_ok=True)
    elif damage.code not in {"receipts-corrupt", "object-missing"} and not _is_pointer(damage):
        location.delete(damage.name)


def _is_pointer(damage: Damage) -> bool:
    return bool(damage.run) and damage.name == pointer_name(damage.run)
