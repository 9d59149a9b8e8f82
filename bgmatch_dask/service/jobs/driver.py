"""The driver of a job: a process of its own beside the cluster, which outlives its submitter.

``python -m bgmatch_dask.service.jobs.driver`` reads its orders as JSON from standard input, answers
with one line of JSON when the job is its own, and then works until the job is over.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from bgmatch_dask.config import ClusterConfig, RunConfig
from bgmatch_dask.errors import BgmatchError, ClusterError
from bgmatch_dask.service.jobs.record import OVER, JobRecord, State
from bgmatch_dask.service.jobs.reporter import RunReporter, StopAskedError
from bgmatch_dask.service.jobs.status import BEAT_SECONDS, from_stores

__all__ = ("Orders", "main")

_POST_EVERY = 3
"""Beats between two posts on the scheduler."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a driver is told when it starts."""

    record: Mapping[str, Any]
    """The job, as JSON."""
    cluster: Mapping[str, Any]
    """Where to work, as JSON; in place of what the job says, when it runs beside a scheduler."""
    end_cluster: bool = False
    """Whether the cluster was made for this job and ends with it."""


def main() -> int:
    """Carry out the orders on standard input; return the exit code."""
    orders = Orders(**json.load(sys.stdin))
    record = JobRecord.from_json(orders.record)
    try:
        reporters = _take(record)
    except BgmatchError as error:
        fault = {"code": error.code, "what": error.what, "where": error.where, "fix": error.fix}
        _answer({"refused": fault})
        return 1
    _answer({"started": record.id})
    driver = _Driver(record, ClusterConfig.model_validate(orders.cluster), reporters)
    signal.signal(signal.SIGTERM, driver.on_signal)
    signal.signal(signal.SIGINT, driver.on_signal)
    code = driver.drive(end_cluster=orders.end_cluster)
    _clear_up()
    return code


def _answer(message: Mapping[str, Any]) -> None:
    """Tell the starter how it went, and let go of it."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(null, stream)
    os.close(null)


def _clear_up() -> None:
    """Remove the folder of this driver's standard error, when nobody needs to read it."""
    errors = Path("stderr.txt")
    if errors.is_file() and not errors.stat().st_size:
        errors.unlink()
        with suppress(OSError):
            Path.cwd().rmdir()


def _take(record: JobRecord) -> tuple[RunReporter, ...]:
    """Make the job this process's own: write its first beats and its record.

    Raises
    ------
    BgmatchError
        ``job-running`` when another driver works on one of its runs, or a fault of a store.
    """
    reporters = tuple(RunReporter(record, place) for place in record.runs)
    others = [r.files.record() for r in reporters]
    known = {other.id: other for other in others if other is not None}
    for status in from_stores(tuple(known.values())):
        for run in status.runs:
            if run.place in record.runs and run.beat is not None and run.state not in OVER:
                raise ClusterError(
                    "job-running",
                    f"The job {run.beat.job} works on the run {run.place.run!r}",
                    where=run.place.store,
                    fix=f"Wait, or stop it with `bgmatch cancel {run.beat.job}`.",
                )
    for reporter in reporters:
        if record.attempt == 1:
            reporter.files.forget_board()
        # The beat first: a record without a beat of its own would look like a job that waits.
        reporter.write_or_raise()
        reporter.files.write_record(record)
    return reporters


class _Driver:
    """Runs all runs of a job and keeps telling how they are."""

    def __init__(
        self, record: JobRecord, cluster: ClusterConfig, reporters: Sequence[RunReporter]
    ) -> None:
        self.record = record
        self.cluster = cluster
        self.reporters = tuple(reporters)
        self._signal = ""
        self._beats = 0

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop cleanly when the machine or the container goes down."""
        del frame
        self._signal = f"stopped by {signal.Signals(number).name}"

    def drive(self, *, end_cluster: bool) -> int:
        """Do all the work; return the exit code."""
        from bgmatch_dask.service.cluster import connect

        try:
            with self._beating_while_connecting(), ExitStack() as stack:
                client = stack.enter_context(connect(self.cluster))
                self._run_all(client)
                if end_cluster:
                    client.shutdown()
        except BgmatchError as error:
            self._end_rest("failed", str(error))
        except Exception as error:  # noqa: BLE001  (whatever it is, people must read it)
            self._tell_trace()
            self._end_rest("failed", f"{type(error).__name__}: {error}")
        finally:
            self._end_rest("interrupted", self._signal or "the driver ended")
        return 0 if all(r.state == "finished" for r in self.reporters) else 1

    @contextmanager
    def _beating_while_connecting(self) -> Iterator[None]:
        """Beat also where the main thread waits for a cluster or for its end."""
        import threading

        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT_SECONDS):
                for reporter in self.reporters:
                    reporter.write()

        thread = threading.Thread(target=beat, name="bgmatch-beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _run_all(self, client: Any) -> None:  # noqa: ANN401
        from bgmatch_dask.service.jobs.bulletin import Bulletin
        from bgmatch_dask.service.versions import address_of

        bulletin = Bulletin(client)
        for reporter in self.reporters:
            reporter.say(
                "waiting",
                "waiting for its turn",
                scheduler=address_of(client),
                dashboard=str(client.dashboard_link),
            )
        # Runs of one store follow each other, because a store has one writer.
        groups: dict[str, list[tuple[RunReporter, RunConfig]]] = {}
        for reporter, config in zip(self.reporters, self.record.run_configs(), strict=True):
            groups.setdefault(reporter.place.store, []).append((reporter, config))
        workers = min(self.cluster.tracts_at_once, len(groups))
        with ThreadPoolExecutor(workers, thread_name_prefix="run") as pool:
            work = {pool.submit(self._run_group, group, client) for group in groups.values()}
            self._watch(work, bulletin, client)
        self._post(bulletin, always=True)

    def _watch(self, work: set[Future[None]], bulletin: Any, client: Any) -> None:  # noqa: ANN401
        running = work
        while running:
            running = wait(running, timeout=BEAT_SECONDS).not_done
            if self._signal or client.status in {"closed", "closing"}:
                self._stop_all(self._signal or "the scheduler is lost")
            elif self._post(bulletin) or any(r.stop_asked() for r in self.reporters):
                self._stop_all("cancel")

    def _stop_all(self, why: str) -> None:
        for reporter in self.reporters:
            reporter.ask_to_stop(why)

    def _post(self, bulletin: Any, *, always: bool = False) -> bool:  # noqa: ANN401
        """Post on the scheduler now and then; return whether the job is to stop."""
        self._beats += 1
        if not always and self._beats % _POST_EVERY:
            return False
        entry = {
            "record": self.record.to_json(),
            "runs": [dict(reporter.to_post()) for reporter in self.reporters],
        }
        try:
            return bool(bulletin.post(entry))
        except (OSError, RuntimeError):  # The latter when the client has given up already.
            return False

    def _run_group(self, group: Sequence[tuple[RunReporter, RunConfig]], client: Any) -> None:  # noqa: ANN401
        for reporter, config in group:
            self._run_one(reporter, config, client)
            reporter.write()

    def _run_one(self, reporter: RunReporter, config: RunConfig, client: Any) -> None:  # noqa: ANN401
        from distributed import Client

        from bgmatch_dask.pipeline.engine import DaskEngine
        from bgmatch_dask.pipeline.plan import make_plan
        from bgmatch_dask.service.versions import address_of
        from bgmatch_dask.service.work import carry_out

        try:
            reporter.check()
            reporter.say("running", "reads the headers of the inputs")
            # A client of its own, because one client hears one run of Dask's event log.
            with Client(address_of(client), security=client.security, set_as_default=False) as own:
                # Also where nothing moves, e.g. because no worker is left, a job can be stopped.
                plan = make_plan(config, DaskEngine(own, while_waiting=reporter.check))
                reporter.say("running")
                summary = carry_out(plan, own, [reporter], while_waiting=reporter.check)
        except StopAskedError as stop:
            why = str(stop)
            reporter.say("cancelled" if why == "cancel" else "interrupted", why)
        except BgmatchError as error:
            reporter.say("failed", str(error))
        except BaseException as error:  # noqa: BLE001  (cancelled futures are no Exception)
            self._tell_trace(reporter)
            reporter.say("failed", _unexpected(error, client))
        else:
            rejected = len(summary["rejected"])
            text = f"{rejected} input(s) rejected; report: {summary['report']}"
            reporter.say("finished", text if rejected else f"report: {summary['report']}")

    def _tell_trace(self, *reporters: RunReporter) -> None:
        for reporter in reporters or self.reporters:
            reporter.log(traceback.format_exc())

    def _end_rest(self, state: State, text: str) -> None:
        """Say how it ended for those runs of which nothing is said yet, and write all."""
        for reporter in self.reporters:
            if reporter.state not in OVER:
                reporter.say(state, text)
            reporter.write()


def _unexpected(error: BaseException, client: Any) -> str:  # noqa: ANN401
    if client.status != "running" or type(error).__name__.endswith("CancelledError"):
        return (
            "[scheduler-lost] The scheduler does not answer any more. Start one again, then "
            "`bgmatch resume`; what is done is not done again."
        )
    return f"{type(error).__name__}: {error}; the trace is in the log"


if __name__ == "__main__":
    sys.exit(main())
