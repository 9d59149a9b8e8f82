"""From a run to all who watch it: the store, the scheduler's page, notebooks, terminals."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from distributed import Client

from bgmatch_dask.errors import BgmatchError
from bgmatch_dask.pipeline.context import board_key
from bgmatch_dask.pipeline.events import (
    TOPIC,
    Event,
    Picture,
    StageEnded,
    UnitDone,
    UnitsKept,
    from_message,
    to_message,
)
from bgmatch_dask.pipeline.plan import TractPlan
from bgmatch_dask.service.board.codec import board_to_json
from bgmatch_dask.service.board.pictures import MosaicPainter, offset_pictures
from bgmatch_dask.service.board.plugin import install_board
from bgmatch_dask.service.board.reducer import apply_event, open_board
from bgmatch_dask.service.board.state import Board
from bgmatch_dask.store import Location, open_store
from bgmatch_dask.store.versions import newest_version

__all__ = ("BoardFeed", "board_path", "picture_path")

_log = logging.getLogger(__name__)
_FLUSH_SECONDS = 0.5
"""The cluster is told of events at least this often."""
_STEPS = 10
"""The mosaic is drawn about this many times while it grows."""


def board_path(run: str) -> str:
    """Return the object that holds the board of a run."""
    return f"runs/{run}/board/board.json"


def picture_path(run: str, name: str) -> str:
    """Return the object that holds a picture of the board."""
    return f"runs/{run}/board/{name}.png"


class BoardFeed:
    """A listener that keeps the board of a run and passes it on; it never stops the run.

    A thread of its own draws pictures, writes the board and the pictures into the store and tells
    the cluster, so that the run waits for none of it. Use it as a context manager.

    Parameters
    ----------
    plan
        Plan of the run.
    client
        Client of the cluster whose event log and scheduler page tell of the run; None for none.
    every
        The board in the store is at most this old while something happens [s].

    Examples
    --------
    >>> with BoardFeed(plan, client) as feed:  # doctest: +SKIP
    ...     run_tract(plan, DaskEngine(client), [feed])
    """

    def __init__(
        self, plan: TractPlan, client: Client | None = None, *, every: float = 2.0
    ) -> None:
        self.key = board_key(plan)
        self.board: Board = open_board(self.key)
        self._location: Location = plan.location
        self._run = plan.config.run
        self._client = client
        self._every = every
        self._events: queue.SimpleQueue[tuple[Event, float, bool] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="bgmatch-board", daemon=True)
        self._painter: MosaicPainter | None = None
        self._drawn = 0
        self._written, self._written_version = 0.0, 0

    def __enter__(self) -> Self:
        """Begin to pass events on."""
        if self._client is not None:
            self._announce(self._client)
        self._thread.start()
        return self

    def _announce(self, client: Client) -> None:
        try:
            install_board(client)
            client.subscribe_topic(TOPIC, self._hear)
        except Exception as error:  # noqa: BLE001  (one that takes no plugin can still work)
            _log.warning("The scheduler shows no board: %s", error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Pass on what is left."""
        self._events.put(None)
        self._thread.join(timeout=30.0)
        if self._client is not None:
            try:
                self._client.unsubscribe_topic(TOPIC)
            except Exception:  # noqa: BLE001  (what a client whose scheduler is gone raises)
                _log.info("The scheduler is gone", exc_info=True)

    def __call__(self, event: Event) -> None:
        """Take in an event of the run."""
        self._events.put((event, time.time(), True))

    def _hear(self, logged: tuple[float, Mapping[str, Any]]) -> None:
        """Take in what workers tell of this run through the event log."""
        message = logged[1]
        if message.get("from") != "worker" or message.get("board") != self.key:
            return
        for item in message["events"]:
            event = from_message(item)
            if event is not None:
                self._events.put((event, float(item["at"]), False))

    def _work(self) -> None:
        last = False
        while not last:
            batch, last = self._next_batch()
            told: list[tuple[Event, float]] = []
            for event, at, ours in batch:
                self._apply(event, at)
                if ours:
                    told.append((event, at))
                told += [(picture, at) for picture in self._draw(event)]
            self._tell(told)
            self._write(now=last)

    def _next_batch(self) -> tuple[list[tuple[Event, float, bool]], bool]:
        """Wait for an event and a moment for more; the second value says that it was the last."""
        batch: list[tuple[Event, float, bool]] = []
        end = time.monotonic() + _FLUSH_SECONDS
        while (left := end - time.monotonic()) > 0:
            try:
                item = self._events.get(timeout=left)
            except queue.Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
            if not isinstance(item[0], UnitDone):
                end = min(end, time.monotonic() + 0.05)
        return batch, False

    def _apply(self, event: Event, at: float) -> None:
        self.board = apply_event(self.board, event, at)

    def _draw(self, event: Event) -> list[Picture]:
        """Return the pictures that an event has made possible, applied and stored."""
        try:
            pictures = list(self._pictures(event))
            for picture in pictures:
                self._apply(picture, self.board.updated)
                self._location.write_bytes(picture_path(self._run, picture.name), picture.png)
        except (BgmatchError, OSError, ValueError):
            _log.warning("A picture of the board could not be drawn", exc_info=True)
            return []
        return pictures

    def _pictures(self, event: Event) -> Iterable[Picture]:
        match event:
            case StageEnded(stage="solve" | "per_warp"):
                return offset_pictures(open_store(self._location.url), self._version)
            case UnitDone(stage="coadd", unit=unit):
                return self._mosaic((unit,), last=False)
            case UnitsKept(stage="coadd", units=units):
                return self._mosaic(units, last=False)
            case StageEnded(stage="coadd"):
                return self._mosaic((), last=True)
            case _:
                return ()

    @property
    def _version(self) -> str:
        return newest_version(self._location, self._run)

    def _mosaic(self, units: Iterable[str], *, last: bool) -> Iterable[Picture]:
        store = open_store(self._location.url)
        if self._painter is None:
            self._painter = MosaicPainter(store, self._version)
        for unit in units:
            self._painter.add(int(unit))
        step = max(store.spec.geometry.patches.n_patches // _STEPS, 1)
        if self._painter.n_patches < self._drawn + (1 if last else step):
            return ()
        self._drawn = self._painter.n_patches
        return self._painter.pictures()

    def _tell(self, events: list[tuple[Event, float]]) -> None:
        if self._client is None or not events:
            return
        try:
            items = [{"at": at, **to_message(event)} for event, at in events]
            self._client.log_event(TOPIC, {"board": self.key, "events": items})
        except Exception as error:  # noqa: BLE001  (what a client whose scheduler is gone raises)
            _log.warning("The scheduler could not be told of the run: %s", error)

    def _write(self, *, now: bool) -> None:
        late = time.monotonic() - self._written > self._every
        fresh = self.board.version > self._written_version
        # Before its first stage a run may still be refused, and the store belongs to another.
        if not (now or late) or not fresh or not self.board.stages:
            return
        try:
            self._location.write_json(board_path(self._run), board_to_json(self.board))
            self._written, self._written_version = time.monotonic(), self.board.version
        except (BgmatchError, OSError):
            _log.warning("The board could not be written", exc_info=True)
