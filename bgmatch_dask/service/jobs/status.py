"""What is true of a job, from what its driver wrote and whether it still does."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bgmatch_dask.service.jobs.files import JobFiles
from bgmatch_dask.service.jobs.record import OVER, Beat, JobRecord, RunPlace, State
from bgmatch_dask.store.owner import known_dead

__all__ = (
    "BEAT_SECONDS",
    "STALE_SECONDS",
    "JobStatus",
    "RunStatus",
    "from_post",
    "from_stores",
    "newest",
)

BEAT_SECONDS = 2.0
"""Time between two signs of life."""
STALE_SECONDS = 30.0
"""Age of a sign of life from which on it is doubted."""
_LOOK_SECONDS = 0.2
"""How often one that is doubted is looked for."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What is true of one run of a job."""

    place: RunPlace
    """Where it lies."""
    state: State
    """What became of it."""
    text: str
    """One sentence for people."""
    beat: Beat | None
    """The newest sign of life."""
    board: Mapping[str, Any] | None
    """The board, see `bgmatch_dask.service.board`."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What is true of a job."""

    record: JobRecord
    """The job as it was submitted."""
    runs: tuple[RunStatus, ...]
    """Its runs."""

    @property
    def state(self) -> State:
        """The state of the whole: of the run that most needs someone to look at it."""
        states = {run.state for run in self.runs}
        order: tuple[State, ...] = ("interrupted", "running", "waiting", "failed", "cancelled")
        return next((state for state in order if state in states), "finished")

    @property
    def text(self) -> str:
        """One sentence for people: what to do, where something is to be done."""
        return next((run.text for run in self.runs if run.state == self.state), "")

    @property
    def over(self) -> bool:
        """Whether no driver works on it."""
        return self.state in OVER

    def to_json(self) -> dict[str, Any]:
        """Return what ``bgmatch status --json`` prints."""
        beats = [run.beat for run in self.runs if run.beat is not None]
        last = max(beats, key=lambda beat: beat.time, default=None)
        return {
            "id": self.record.id,
            "state": self.state,
            "text": self.text,
            "created": self.record.created,
            "attempt": self.record.attempt,
            "submitted_from": self.record.submitted_from,
            "driver": None if last is None else {k: last.owner.get(k) for k in ("host", "pid")},
            "scheduler": "" if last is None else last.scheduler,
            "dashboard": "" if last is None else last.dashboard,
            "last_sign_of_life": None if last is None else last.time,
            "runs": [
                {
                    "store": run.place.store,
                    "run": run.place.run,
                    "state": run.state,
                    "text": run.text,
                    "board": run.board,
                }
                for run in self.runs
            ],
        }


def from_stores(
    records: Sequence[JobRecord], *, stale: float = STALE_SECONDS, pause: float = 2 * BEAT_SECONDS
) -> tuple[JobStatus, ...]:
    """Return the state of jobs from their stores.

    A driver whose process is known to be dead is dead. One that has been silent for long by this
    machine's clock is watched for a moment, because clocks differ: if it still does not beat, it
    is taken for dead.

    Parameters
    ----------
    records
        The jobs.
    stale
        Age from which on a sign of life is doubted [s].
    pause
        How long to watch those that are in doubt, all together, at most [s].

    Raises
    ------
    StoreError
        When a store cannot be read.
    """
    beats = {place: JobFiles(place).beat() for record in records for place in record.runs}
    silent = {p: b for p, b in beats.items() if b is not None and _in_doubt(b, stale)}
    end = time.monotonic() + pause
    while silent and time.monotonic() < end:
        time.sleep(min(_LOOK_SECONDS, pause))
        for place, before in list(silent.items()):
            beats[place] = JobFiles(place).beat()
            if beats[place] != before:
                del silent[place]
    return tuple(
        JobStatus(
            record,
            tuple(_run(record, p, beats[p], JobFiles(p).board(), p in silent) for p in record.runs),
        )
        for record in records
    )


def from_post(entry: Mapping[str, Any]) -> JobStatus:
    """Return the state of a job from what its driver posted on the scheduler."""
    record = JobRecord.from_json(entry["record"])
    silent = entry["age"] > STALE_SECONDS
    runs = (
        _run(record, place, Beat.from_json(run["beat"]), run["board"], silent)
        for place, run in zip(record.runs, entry["runs"], strict=True)
    )
    return JobStatus(record, tuple(runs))


def newest(statuses: Iterable[JobStatus]) -> tuple[JobStatus, ...]:
    """Return jobs with the newest first."""
    return tuple(sorted(statuses, key=lambda s: s.record.created, reverse=True))


def _in_doubt(beat: Beat, stale: float) -> bool:
    silent = abs(time.time() - beat.time) > stale
    return beat.state not in OVER and silent and not known_dead(beat.owner)


def _run(
    record: JobRecord,
    place: RunPlace,
    beat: Beat | None,
    board: Mapping[str, Any] | None,
    silent: bool,
) -> RunStatus:
    if beat is None or (beat.job, beat.attempt) < (record.id, record.attempt):
        return RunStatus(place, "waiting", "waiting for its driver", beat, board)
    if beat.job != record.id:
        text = f"another job, {beat.job}, has taken over this run"
        return RunStatus(place, "cancelled", text, beat, board)
    state, text = beat.state, beat.text
    if state not in OVER and (silent or known_dead(beat.owner)):
        state = "interrupted"
    if state == "interrupted":
        text = f"interrupted: run bgmatch resume {record.id}"
    elif state == "cancelled":
        text = f"cancelled; to go on: bgmatch resume {record.id}"
    return RunStatus(place, state, text, beat, board)
