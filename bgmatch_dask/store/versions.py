"""Versions of the products of a run, and the pointer that tells which one is in force.

A run whose settings or inputs changed makes new products beside those that it has committed: its
first version lies under the name of the run, the next ones under ``<run>@2``, ``<run>@3``, …
(offsets, matched warps, coadds, report, mark). Its last act is one small put of
``runs/<run>/current.json``. Readers go through that pointer, so that they see either version whole.
What a run works with but nobody reads as a product (plan, sums, differences) is not versioned.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bgmatch_dask.errors import StoreError
from bgmatch_dask.store.commit import is_committed, uncommit_run
from bgmatch_dask.store.ledger import WORKING_STAGES, Ledger, run_names
from bgmatch_dask.store.location import Location
from bgmatch_dask.store.traffic import checksum

__all__ = (
    "Version",
    "current_version",
    "describe_version",
    "list_versions",
    "needs_layout",
    "newest_version",
    "point_to",
    "pointer_fault",
    "pointer_name",
    "prune_versions",
    "remove_version",
    "run_of",
    "version_for",
)

_MARK = "@"
_WORKING_FILES = ("config.json", "plan.json", "current.json", "job/", "board/")
_WORKING_FOLDERS = ("differences/", "outliers/")


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the products of a run."""

    name: str
    """What its objects are named by: the run's name, for later versions with ``@<n>``."""
    number: int
    """1 for the first."""
    committed: bool
    """Whether it is complete."""
    basis: str
    """Digest of all that its products depend on; empty where that is not known."""
    current: bool
    """Whether the pointer of the run names it."""


def run_of(name: str) -> str:
    """Return the name of the run that a version belongs to."""
    return name.partition(_MARK)[0]


def current_version(location: Location, run: str) -> str:
    """Return the name of the version that is in force.

    Parameters
    ----------
    location, run
        The store, and a run in it; a version that is named (``main@2``) is taken as it is, and
        ``main@1`` is the first one.

    Raises
    ------
    StoreError
        ``commit-corrupt`` when the pointer is not what was written.
    """
    name, _, number = run.partition(_MARK)
    if number:
        return name if number == "1" else run
    try:
        data = location.read_bytes(pointer_name(run))
    except StoreError as error:
        if error.code != "object-missing":
            raise
        return run
    try:
        found: dict[str, Any] = json.loads(data)
        version = str(found["version"])
        if found["checksum"] == checksum(version.encode()):
            return version
    except (ValueError, TypeError, KeyError):
        pass
    raise StoreError(
        "commit-corrupt",
        f"The pointer to the version of run {run!r} in force cannot be trusted",
        where=location.child(pointer_name(run)),
        fix="`bgmatch verify --repair STORE` lets it point to the newest version.",
    )


def point_to(location: Location, name: str) -> None:
    """Bring a committed version into force, by one put."""
    pointer = {"version": name, "checksum": checksum(name.encode())}
    location.write_json(pointer_name(run_of(name)), pointer)


def pointer_fault(location: Location, run: str) -> str:
    """Return the code of what is wrong with the pointer of a run; empty when it is sound."""
    try:
        current_version(location, run)
    except StoreError as error:
        return error.code
    later = any(v.committed and v.number > 1 for v in list_versions(location, run))
    return "pointer-missing" if later and not location.exists(pointer_name(run)) else ""


def list_versions(location: Location, run: str) -> tuple[Version, ...]:
    """Return the versions of a run, the unfinished ones too, by number."""
    try:
        current = current_version(location, run)
    except StoreError:
        current = ""
    names = [name for name in run_names(location) if run_of(name) == run]
    found = (
        Version(name, _number(name), is_committed(location, name), basis, name == current)
        for name in names
        if (basis := _basis(location, name)) or is_committed(location, name)
    )
    return tuple(sorted(found, key=lambda version: version.number))


def newest_version(location: Location, run: str) -> str:
    """Return the version of a run that was begun last, finished or not."""
    versions = list_versions(location, run)
    return versions[-1].name if versions else run


def version_for(location: Location, run: str, basis: str) -> str:
    """Return the name of the version that products of a basis belong to.

    The one that already has this basis; else one that was begun and never finished; else a new
    one. A committed version of another basis is never written to.
    """
    versions = list_versions(location, run)
    same = [v.name for v in versions if v.basis == basis]
    if same:
        return same[-1]
    committed = max((v.number for v in versions if v.committed), default=0)
    begun = [v.name for v in versions if not v.committed and v.number > committed]
    if begun:
        return begun[-1]
    number = 1 + max((v.number for v in versions), default=0)
    return run if number == 1 else f"{run}{_MARK}{number}"


def describe_version(location: Location, name: str, facts: dict[str, Any]) -> None:
    """Keep what a version is made from; ``facts`` holds its ``basis``."""
    location.write_json(_facts(name), facts)


def prune_versions(location: Location, run: str, keep: int) -> tuple[str, ...]:
    """Remove all but the version in force and the newest ``keep`` committed ones beside it."""
    others = [v for v in list_versions(location, run) if not v.current]
    kept = [v.name for v in others if v.committed][::-1][:keep]
    gone = tuple(v.name for v in others if v.name not in kept)
    for name in gone:
        remove_version(location, name)
    return gone


def remove_version(location: Location, name: str) -> None:
    """Delete the products of a version and all that speaks of it.

    The mark goes first and the receipts next, so that what a crash leaves is never trusted.
    """
    uncommit_run(location, name)
    ledger = Ledger(location, name)
    for stage in ledger.stages(shared=False):
        if stage not in WORKING_STAGES:
            ledger.clear(stage)
    groups = _groups(name)
    units = {unit for unit in ledger.read("layout") if _is_part(unit, groups)}
    if units:
        ledger.drop("layout", units)
    for place in (*groups, f"runs/{name}"):
        for item in list(location.list(place)):
            if not _is_working(item, name):
                location.delete(item)


def needs_layout(unit: str, name: str) -> bool:
    """Whether a version needs a unit of the layout: its own groups, and what is no product."""
    return _is_part(unit, _groups(name)) or not unit.startswith(("match/", "coadd/"))


def _groups(name: str) -> tuple[str, ...]:
    return f"match/{name}", f"coadd/{name}_matched", f"coadd/{name}_unmatched"


def _is_part(unit: str, groups: tuple[str, ...]) -> bool:
    return any(unit == group or unit.startswith(f"{group}/") for group in groups)


def _is_working(item: str, name: str) -> bool:
    """Whether an object belongs to the work of a run and not to one of its versions."""
    run = run_of(name)
    files = (f"runs/{run}/{file}" for file in _WORKING_FILES)
    folders = (f"match/{run}/{folder}" for folder in _WORKING_FOLDERS)
    receipts = (f"runs/{run}/receipts/{stage}/" for stage in WORKING_STAGES)
    return item.startswith((*files, *folders, *receipts))


def _number(name: str) -> int:
    text = name.partition(_MARK)[2]
    return int(text) if text.isdecimal() else 1


def _basis(location: Location, name: str) -> str:
    try:
        return str(location.read_json(_facts(name))["basis"])
    except (StoreError, ValueError, TypeError, KeyError):
        return ""


def _facts(name: str) -> str:
    return f"runs/{name}/version.json"


def pointer_name(run: str) -> str:
    """Return the object that tells which version of a run is in force."""
    return f"runs/{run}/current.json"
