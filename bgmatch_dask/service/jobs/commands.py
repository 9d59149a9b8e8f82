"""What people do with jobs: submit, cancel, resume. The command line is a thin shell over this."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

from bgmatch_dask.config import ClusterConfig, RunConfig
from bgmatch_dask.errors import BgmatchError, ClusterError, StoreError
from bgmatch_dask.service.jobs.files import JobFiles
from bgmatch_dask.service.jobs.find import Where, find_job, posts_of, remember
from bgmatch_dask.service.jobs.launch import launch
from bgmatch_dask.service.jobs.record import JobRecord, RunPlace, new_record
from bgmatch_dask.service.jobs.status import JobStatus
from bgmatch_dask.store import normalise_url

__all__ = ("ask_to_cancel", "cancel", "logs_of", "resume", "submit")


def submit(configs: Sequence[RunConfig]) -> JobRecord:
    """Start a job on its cluster and return as soon as its driver has taken it.

    Parameters
    ----------
    configs
        One configuration for each run, from `bgmatch_dask.config.load_job`; the cluster is that
        of the first. Relative paths are taken from the current directory.

    Raises
    ------
    ClusterError
        When the cluster cannot be reached, or the driver refuses the job.
    """
    record = new_record([_with_absolute_paths(config) for config in configs])
    cluster = record.run_configs()[0].cluster
    launch(record, cluster)
    remember(record, cluster)
    return record


def resume(job: str | None, where: Where) -> JobRecord:
    """Start a new driver for a job that stopped; what is done is not done again.

    Raises
    ------
    ClusterError
        ``job-running`` when it still has a driver; as `submit`.
    ConfigError
        ``job-unknown`` or ``job-ambiguous``.
    """
    status = find_job(job, where)
    if not status.over:
        raise ClusterError(
            "job-running",
            f"The job {status.record.id} is {status.state}",
            fix=f"Stop it first with `bgmatch cancel {status.record.id}`.",
        )
    record = replace(status.record, attempt=status.record.attempt + 1)
    cluster = where.cluster or record.run_configs()[0].cluster
    launch(record, cluster)
    remember(record, cluster)
    return record


def cancel(job: str | None, where: Where, *, timeout: float = 120.0) -> JobStatus:
    """Stop a job cleanly, so that it can be resumed, and return how it is then.

    Parameters
    ----------
    job, where
        Which job.
    timeout
        How long to wait for its driver [s]; it stops between two units of work in any case.
    """
    status = find_job(job, where)
    if status.over:
        return status
    ask_to_cancel(status.record, where)
    end = time.monotonic() + timeout
    while not status.over and time.monotonic() < end:
        time.sleep(0.5)
        status = find_job(status.record.id, where)
    return status


def ask_to_cancel(record: JobRecord, where: Where) -> None:
    """Ask the driver of a job to stop: through its stores, or through its scheduler.

    Raises
    ------
    BgmatchError
        When neither can be reached.
    """
    if where.cluster is None:
        try:
            for place in record.runs:
                JobFiles(place).ask_to_cancel(record)
        except BgmatchError:
            if record.run_configs()[0].cluster.kind != "address":
                raise
        else:
            return
    _ask_on_scheduler(record, where.cluster or record.run_configs()[0].cluster)


def logs_of(job: str | None, where: Where) -> tuple[tuple[RunPlace, str], ...]:
    """Return the last lines of the log of every run of a job.

    Raises
    ------
    BgmatchError
        When the job is not known, or neither its store nor its scheduler can be reached.
    """
    record = find_job(job, where).record
    try:
        if where.cluster is None:
            return tuple((place, JobFiles(place).log()) for place in record.runs)
    except StoreError:
        if record.run_configs()[0].cluster.kind != "address":
            raise
    posts = posts_of(where.cluster or record.run_configs()[0].cluster)
    texts = [[r["log"] for r in p["runs"]] for p in posts if p["record"]["id"] == record.id]
    return tuple(zip(record.runs, texts[0], strict=True)) if texts else ()


def _ask_on_scheduler(record: JobRecord, cluster: ClusterConfig) -> None:
    from bgmatch_dask.service.cluster import connect_client
    from bgmatch_dask.service.jobs.bulletin import Bulletin

    with connect_client(cluster) as client:
        if not Bulletin(client).ask_to_cancel(record.id):
            raise ClusterError(
                "job-unknown",
                f"The scheduler knows nothing of the job {record.id}",
                where=str(cluster.scheduler),
                fix="Give --store, the place where the job writes.",
            )


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """Return a configuration that means the same from any directory."""
    inputs, cluster = config.inputs, config.cluster
    profile = inputs.profile
    if Path(profile).suffix in {".yaml", ".yml"}:
        profile = _absolute(profile)
    tls = {name: getattr(cluster, name) for name in ("tls_ca", "tls_cert", "tls_key")}
    return config.model_copy(
        update={
            "inputs": inputs.model_copy(
                update={"paths": tuple(map(_absolute, inputs.paths)), "profile": profile}
            ),
            "store": config.store.model_copy(
                update={"url": normalise_url(config.store.url, config.store.options), "options": {}}
            ),
            "cluster": cluster.model_copy(
                update={
                    name: None if path is None else _absolute(path) for name, path in tls.items()
                }
            ),
        }
    )


def _absolute(path: str) -> str:
    """Return a path or pattern from the root; addresses of other places stay as they are."""
    return path if urlparse(path).scheme else str(Path(path).expanduser().absolute())
