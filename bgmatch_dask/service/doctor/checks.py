"""All checks in their order. Each looks at one thing and says what it saw and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Literal

from distributed import Client

from bgmatch_dask.config import RunConfig
from bgmatch_dask.errors import BgmatchError
from bgmatch_dask.pipeline.plan import TractPlan, make_plan
from bgmatch_dask.service.cluster import EXTRAS, connect_client, load_extra
from bgmatch_dask.service.doctor.cluster_checks import (
    check_clocks,
    check_dashboard,
    check_memory,
    check_worker_rights,
    check_workers,
)
from bgmatch_dask.service.doctor.here import check_port, check_store, local_memory
from bgmatch_dask.service.versions import find_mismatches, mismatch_table

__all__ = ("Check", "examine")


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found."""

    name: str
    """What was looked at."""
    verdict: Literal["ok", "wrong", "skipped"]
    """Whether it is as it should be."""
    says: str
    """What was seen."""
    fix: str = ""
    """What to do."""
    code: str = ""
    """Stable identifier of what is wrong."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self)


def examine(config: RunConfig) -> Iterator[Check]:
    """Yield what every check found; nothing is changed, but for a probe in the store.

    Parameters
    ----------
    config
        Configuration of the job, or the defaults with an address of a cluster.
    """
    cluster = config.cluster
    plan: TractPlan | None = None
    yield _checked("store", lambda: check_store(config.store.url, config.store.options))
    if config.inputs.paths:
        try:
            plan = make_plan(config)
            yield Check("inputs", "ok", f"{len(plan.ingest)} units, {len(plan.rejected)} rejected")
        except BgmatchError as error:
            yield _wrong("inputs", error)
    if cluster.kind in EXTRAS:
        yield _checked("package", lambda: f"{load_extra(cluster.kind).__name__} is installed")
    if cluster.kind != "address":
        yield _checked("port", lambda: check_port(cluster.dashboard))
        if cluster.kind == "local":
            yield _checked("memory", lambda: local_memory(cluster, plan))
        return
    with ExitStack() as stack:
        try:
            client = stack.enter_context(connect_client(cluster))
        except BgmatchError as error:
            yield _wrong("scheduler", error)
            return
        yield Check("scheduler", "ok", f"answers at {client.scheduler_info()['address']}")
        yield from _of_cluster(client, config, plan)


def _of_cluster(client: Client, config: RunConfig, plan: TractPlan | None) -> Iterator[Check]:
    yield _versions(client)
    workers = _checked("workers", lambda: check_workers(client))
    yield workers
    yield _checked("dashboard", lambda: check_dashboard(client))
    if workers.verdict != "ok":
        return
    yield _checked("clocks", lambda: check_clocks(client))
    yield _checked("memory", lambda: check_memory(client, plan))
    yield _checked("rights of workers", lambda: check_worker_rights(client, config))


def _versions(client: Client) -> Check:
    found = find_mismatches(client)
    if not found:
        return Check("versions", "ok", "client, scheduler and workers agree")
    return Check(
        "versions",
        "wrong",
        "versions differ:\n" + mismatch_table(found),
        "Install the same requirements.lock everywhere, or use one image; then start the workers "
        "and the scheduler again.",
        "version-mismatch",
    )


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", look())
    except BgmatchError as error:
        return _wrong(name, error)


def _wrong(name: str, error: BgmatchError) -> Check:
    where = f" ({error.where})" if error.where else ""
    return Check(name, "wrong", f"{error.what}{where}", error.fix, error.code)
