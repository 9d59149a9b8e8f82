"""The mark of a finished run: written last, by the driver alone, and checked by every reader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bgmatch_dask.errors import StoreError
from bgmatch_dask.store.location import Location
from bgmatch_dask.store.traffic import checksum

__all__ = ("commit_run", "is_committed", "load_commit", "uncommit_run")


def commit_run(location: Location, run: str, facts: Mapping[str, Any]) -> None:
    """Mark a run as finished; all that it made must be in place.

    Parameters
    ----------
    location, run
        The store and the run in it, whose ``summary.json`` is written.
    facts
        What readers may want to know without reading anything else (JSON types).
    """
    summary = checksum(location.read_bytes(_summary(run)))
    mark = {**facts, "run": run, "summary": summary}
    location.write_json(_name(run), {**mark, "checksum": _own_checksum(mark)})


def uncommit_run(location: Location, run: str) -> None:
    """Take the mark back, because the products may now change."""
    location.delete(_name(run))


def is_committed(location: Location, run: str) -> bool:
    """Whether a run is finished, as far as its mark tells; `load_commit` checks it."""
    return location.exists(_name(run))


def load_commit(location: Location, run: str) -> dict[str, Any]:
    """Return the mark of a finished run and check that it and the summary are whole.

    Raises
    ------
    StoreError
        ``run-missing`` when the run is not finished, ``commit-corrupt`` when its mark or its
        summary is not what was written.
    """
    try:
        data = location.read_bytes(_name(run))
    except StoreError as error:
        if error.code != "object-missing":
            raise
        raise StoreError(
            "run-missing",
            f"The store has no finished run {run!r}",
            where=location.url,
            fix="Run the job again; it continues where it stopped.",
        ) from error
    try:
        mark: dict[str, Any] = json.loads(data)
        own = mark.pop("checksum")
        sound = own == _own_checksum(mark)
        whole = sound and mark["summary"] == checksum(location.read_bytes(_summary(run)))
    except (ValueError, TypeError, KeyError, AttributeError, StoreError) as error:
        raise _corrupt(location, run, str(error)) from error
    if not whole:
        what = "summary.json is not the one that was committed" if sound else "its checksum fails"
        raise _corrupt(location, run, what)
    return mark


def _corrupt(location: Location, run: str, why: str) -> StoreError:
    return StoreError(
        "commit-corrupt",
        f"The mark of run {run!r} cannot be trusted: {why}",
        where=location.child(_name(run)),
        fix="`bgmatch verify --repair STORE` checks all that the run made and marks it anew.",
    )


def _own_checksum(mark: Mapping[str, Any]) -> str:
    return checksum(json.dumps(mark, sort_keys=True).encode())


def _name(run: str) -> str:
    return f"runs/{run}/commit.json"


def _summary(run: str) -> str:
    return f"runs/{run}/summary.json"
