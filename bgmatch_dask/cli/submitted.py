"""Commands about jobs that run on their own: submit, cancel, resume, and looking at them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bgmatch_dask.cli.exits import FAILURE, PARTIAL, print_json, reported
from bgmatch_dask.cli.options import Json, Overrides, Scheduler, Store, Workers

if TYPE_CHECKING:
    from bgmatch_dask.service.jobs.find import Where
    from bgmatch_dask.service.jobs.status import JobStatus

__all__ = ("cancel", "jobs", "logs", "resume", "status", "submit", "watch")

JobId = Annotated[
    str | None,
    typer.Argument(help="Identifier of the job, or how it begins; default: the newest."),
]
Tls = Annotated[
    str | None,
    typer.Option("--config", "-c", help="File whose section cluster tells how to reach it (TLS)."),
]


def submit(
    job: Annotated[str, typer.Argument(help="Job file (YAML or TOML).")],
    overrides: Overrides = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Start a job on its cluster, print its identifier and return; nothing here needs to stay."""
    with reported():
        from bgmatch_dask.config import load_job
        from bgmatch_dask.service.jobs.commands import submit as start

        values = {"cluster": {"scheduler": scheduler, "workers": workers}}
        record = start(load_job(job, overrides or (), values))
        facts = {"id": record.id, "runs": [_place(run) for run in record.runs]}
        _print(facts, [record.id], json=json)


def jobs(
    store: Store = None, scheduler: Scheduler = None, config: Tls = None, json: Json = False
) -> None:
    """List jobs: those submitted from this machine, of a store, or on a scheduler."""
    with reported():
        from bgmatch_dask.service.jobs.find import find_jobs
        from bgmatch_dask.service.jobs.show import job_lines

        found = find_jobs(_where(store, scheduler, config))
        facts = [_without_boards(status.to_json()) for status in found]
        _print(facts, job_lines(found), json=json)


def status(
    job: JobId = None,
    store: Store = None,
    scheduler: Scheduler = None,
    config: Tls = None,
    json: Json = False,
) -> None:
    """Show how a job is, truly: whether it runs, how far it is, and what to do."""
    with reported():
        from bgmatch_dask.service.jobs.find import find_job
        from bgmatch_dask.service.jobs.show import status_lines

        found = find_job(job, _where(store, scheduler, config))
        _print(found.to_json(), status_lines(found), json=json)


def watch(
    job: JobId = None,
    store: Store = None,
    scheduler: Scheduler = None,
    config: Tls = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Show the progress of a job until it is over. Leaving with Ctrl-C does not stop the job."""
    with reported():
        from bgmatch_dask.service.jobs.find import find_job
        from bgmatch_dask.service.jobs.show import Screen

        where = _where(store, scheduler, config)
        found = find_job(job, where)
        try:
            with Screen() as screen:
                while not found.over:
                    screen.show(found)
                    time.sleep(every)
                    found = find_job(found.record.id, where)
                screen.show(found)
        except KeyboardInterrupt:
            sys.stderr.write(f"the job {found.record.id} goes on\n")
            raise typer.Exit from None
    _exit_like(found)


def logs(
    job: JobId = None, store: Store = None, scheduler: Scheduler = None, config: Tls = None
) -> None:
    """Print the last lines that the driver of a job wrote."""
    with reported():
        from bgmatch_dask.service.jobs.commands import logs_of

        for place, text in logs_of(job, _where(store, scheduler, config)):
            print(f"== {place.store} {place.run}")
            print(text, end="")


def cancel(
    job: JobId = None,
    store: Store = None,
    scheduler: Scheduler = None,
    config: Tls = None,
    json: Json = False,
) -> None:
    """Stop a job between two units of work; what is done is kept, and it can be resumed."""
    with reported():
        from bgmatch_dask.service.jobs.commands import cancel as stop

        found = stop(job, _where(store, scheduler, config))
        line = f"{found.record.id}  {found.state}  {found.text}"
        _print(_without_boards(found.to_json()), [line], json=json)


def resume(
    job: JobId = None,
    store: Store = None,
    scheduler: Scheduler = None,
    config: Tls = None,
    json: Json = False,
) -> None:
    """Go on with a job that was interrupted, cancelled or failed; what is done stays done."""
    with reported():
        from bgmatch_dask.service.jobs.commands import resume as go_on

        record = go_on(job, _where(store, scheduler, config))
        _print({"id": record.id, "attempt": record.attempt}, [record.id], json=json)


def _print(facts: Any, lines: Iterable[str], *, json: bool) -> None:  # noqa: ANN401
    """Print facts for programs, or lines for people."""
    if json:
        print_json(facts)
        return
    for line in lines:
        print(line)


def _where(store: str | None, scheduler: str | None, config: str | None) -> Where:
    from bgmatch_dask.config import load_config
    from bgmatch_dask.service.jobs.find import Where

    if scheduler is None and config is None:
        return Where(store)
    cluster = load_config(config, (), {"cluster": {"scheduler": scheduler}}).cluster
    return Where(store, cluster)


def _exit_like(found: JobStatus) -> None:
    """Exit as `bgmatch run` would have."""
    if found.state != "finished":
        raise typer.Exit(FAILURE)
    if any((run.board or {}).get("n_rejected") for run in found.runs):
        raise typer.Exit(PARTIAL)


def _without_boards(facts: dict[str, Any]) -> dict[str, Any]:
    runs = [{k: v for k, v in run.items() if k != "board"} for run in facts["runs"]]
    return {**facts, "runs": runs}


def _place(run: Any) -> dict[str, str]:  # noqa: ANN401
    return {"store": run.store, "run": run.run}
