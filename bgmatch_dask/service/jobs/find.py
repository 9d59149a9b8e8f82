"""Finds jobs: by what this machine remembers, in a store, or on a scheduler."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from bgmatch_dask.config import ClusterConfig
from bgmatch_dask.errors import BgmatchError, ConfigError, StoreError
from bgmatch_dask.service.jobs.files import JobFiles, jobs_of_store
from bgmatch_dask.service.jobs.record import JobRecord, RunPlace
from bgmatch_dask.service.jobs.status import JobStatus, from_post, from_stores, newest

__all__ = ("Where", "find_job", "find_jobs", "posts_of", "remember")

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Where:
    """Where to look for jobs; with nothing set, among those submitted from this machine."""

    store: str | None = None
    """A store."""
    cluster: ClusterConfig | None = None
    """A cluster of the kind ``address``."""


@dataclass(frozen=True, slots=True)
class _Pointer:
    """What a machine remembers of a job that it submitted."""

    id: str
    runs: tuple[RunPlace, ...]
    cluster: dict[str, Any]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> _Pointer:
        return cls(data["id"], tuple(RunPlace(**run) for run in data["runs"]), data["cluster"])


def remember(record: JobRecord, cluster: ClusterConfig) -> None:
    """Note on this machine where a job lies, so that its identifier is enough to find it."""
    pointer = _Pointer(record.id, record.runs, cluster.model_dump(mode="json"))
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{record.id}.part"
    part.write_text(json.dumps(asdict(pointer)), encoding="utf-8")
    part.replace(folder / f"{record.id}.json")


def find_jobs(where: Where) -> tuple[JobStatus, ...]:
    """Return all jobs of a place, the newest first.

    Raises
    ------
    BgmatchError
        When the store or the scheduler cannot be reached. Of jobs that this machine remembers
        those that cannot be reached are left out.
    """
    if where.cluster is not None:
        return newest(from_post(entry) for entry in posts_of(where.cluster))
    if where.store is not None:
        return newest(from_stores(tuple({r.id: r for r in jobs_of_store(where.store)}.values())))
    found = []
    for pointer in _pointers():
        with suppress(BgmatchError):
            found.append(_follow(pointer))
    return newest(found)


def find_job(job: str | None, where: Where) -> JobStatus:
    """Return one job.

    Parameters
    ----------
    job
        Its identifier, or how it begins; None for the newest.
    where
        Where to look.

    Raises
    ------
    ConfigError
        ``job-unknown`` or ``job-ambiguous``.
    BgmatchError
        When neither its store nor its scheduler can be reached.
    """
    if where.cluster is None and where.store is None:
        return _follow(_choose(job, {pointer.id: pointer for pointer in _pointers()}))
    return _choose(job, {status.record.id: status for status in find_jobs(where)})


def posts_of(cluster: ClusterConfig) -> list[dict[str, Any]]:
    """Return what drivers posted on a scheduler.

    Raises
    ------
    ClusterError
        When the scheduler cannot be reached.
    """
    from bgmatch_dask.service.cluster import connect_client
    from bgmatch_dask.service.jobs.bulletin import Bulletin

    with connect_client(cluster) as client:
        return Bulletin(client).read()


def _choose(job: str | None, known: Mapping[str, Found]) -> Found:
    if job is None and known:
        return known[max(known)]
    beginning = job or ""
    matching = [v for k, v in known.items() if k.startswith(beginning)]
    if len(matching) != 1:
        raise ConfigError(
            "job-ambiguous" if matching else "job-unknown",
            f"{len(matching)} jobs begin with {job!r}" if job else "There is no job",
            fix="`bgmatch jobs` lists them; --store URL and --scheduler ADDRESS look elsewhere.",
        )
    return matching[0]


def _follow(pointer: _Pointer) -> JobStatus:
    """Return the state of a job that this machine submitted: from the store, or the scheduler."""
    try:
        return from_stores((_record(pointer),))[0]
    except StoreError:
        cluster = ClusterConfig.model_validate(pointer.cluster)
        if cluster.kind != "address":
            raise
        with suppress(BgmatchError):
            for entry in posts_of(cluster):
                if entry["record"]["id"] == pointer.id:
                    return from_post(entry)
        raise


def _record(pointer: _Pointer) -> JobRecord:
    other = ""
    for place in pointer.runs:
        record = JobFiles(place).record()
        if record is not None and record.id == pointer.id:
            return record
        other = record.id if record is not None else other
    raise StoreError(
        "job-gone",
        f"The store tells nothing of the job {pointer.id}"
        + (f"; the job {other} has taken its place" if other else ""),
        where=pointer.runs[0].store,
        fix="Look at the newer job, or submit again.",
    )


def _pointers() -> Sequence[_Pointer]:
    pointers = []
    for path in sorted(_folder().glob("*.json")):
        # A file of another version, or one half deleted, is no reason to hide the others.
        with suppress(OSError, ValueError, KeyError, TypeError):
            pointers.append(_Pointer.from_json(json.loads(path.read_text(encoding="utf-8"))))
    return pointers


def _folder() -> Path:
    own = os.environ.get("BGMATCH_STATE")
    if own:
        return Path(own) / "jobs"
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "bgmatch" / "jobs"
