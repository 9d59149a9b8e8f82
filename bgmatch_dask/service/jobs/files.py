"""The files of a job in the store of each of its runs: ``runs/<run>/job/…``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bgmatch_dask.errors import StoreError
from bgmatch_dask.service.board.feed import board_path
from bgmatch_dask.service.jobs.record import Beat, JobRecord, RunPlace
from bgmatch_dask.store import Location

__all__ = ("JobFiles", "jobs_of_store")


class JobFiles:
    """Reads and writes what a job keeps in the store of one of its runs.

    Every file is written in one step and has one writer: the driver, and for ``cancel.json``
    whoever wants the job to stop.

    Parameters
    ----------
    place
        The run.
    """

    def __init__(self, place: RunPlace) -> None:
        self.place = place
        self.location = Location.of(place.store)

    def name(self, file: str) -> str:
        """Return the path of a file below the store."""
        return f"runs/{self.place.run}/job/{file}"

    def record(self) -> JobRecord | None:
        """Return the record of the newest job of this run, None when it never had one."""
        data = self._json(self.name("job.json"))
        return None if data is None else JobRecord.from_json(data)

    def write_record(self, record: JobRecord) -> None:
        """Write the record of a job that begins."""
        self.location.write_json(self.name("job.json"), record.to_json())

    def beat(self) -> Beat | None:
        """Return the newest sign of life."""
        data = self._json(self.name("beat.json"))
        return None if data is None else Beat.from_json(data)

    def write_beat(self, beat: Beat) -> None:
        """Write a sign of life."""
        self.location.write_json(self.name("beat.json"), beat.to_json())

    def board(self) -> Mapping[str, Any] | None:
        """Return the board of the run, which `bgmatch_dask.service.board` keeps beside the job."""
        return self._json(board_path(self.place.run))

    def forget_board(self) -> None:
        """Delete the board that an earlier job of this run has left."""
        self.location.delete(board_path(self.place.run))

    def log(self) -> str:
        """Return the last lines of the log."""
        data = self._bytes(self.name("log.txt"))
        return "" if data is None else data.decode(errors="replace")

    def write_log(self, text: str) -> None:
        """Write the last lines of the log."""
        self.location.write_bytes(self.name("log.txt"), text.encode())

    def ask_to_cancel(self, record: JobRecord) -> None:
        """Ask the driver of this attempt to stop; later ones are not concerned."""
        request = {"job": record.id, "attempt": record.attempt}
        self.location.write_json(self.name("cancel.json"), request)

    def asked_to_cancel(self, record: JobRecord) -> bool:
        """Whether someone wants this attempt to stop."""
        wanted = self._json(self.name("cancel.json")) or {}
        return (wanted.get("job"), wanted.get("attempt")) == (record.id, record.attempt)

    def _json(self, name: str) -> dict[str, Any] | None:
        data = self._bytes(name)
        if data is None:
            return None
        try:
            value = json.loads(data)
        except ValueError as error:
            raise StoreError(
                "job-unreadable",
                f"{name} is damaged: {error}",
                where=self.location.url,
                fix="Delete this file, and submit the job again; what is done is not done again.",
            ) from error
        return value if isinstance(value, dict) else {}

    def _bytes(self, name: str) -> bytes | None:
        try:
            return self.location.read_bytes(name)
        except StoreError as error:
            if error.code == "object-missing":
                return None
            raise


def jobs_of_store(url: str) -> Iterator[JobRecord]:
    """Yield the newest job of every run of a store."""
    location = Location.of(url)
    for name in location.list("runs"):
        found = re.fullmatch(r"runs/([^/]+)/job/job\.json", name)
        if found:
            record = JobFiles(RunPlace(location.url, found[1])).record()
            if record is not None:
                yield record
