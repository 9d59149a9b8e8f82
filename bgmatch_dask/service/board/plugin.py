"""The boards of all runs of a cluster, kept by its scheduler from the event log."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from distributed import Client, Scheduler, SchedulerPlugin

from bgmatch_dask.pipeline.events import TOPIC, Picture, from_message
from bgmatch_dask.service.board.links import page_of
from bgmatch_dask.service.board.reducer import apply_event, open_board
from bgmatch_dask.service.board.render import LiveWorker
from bgmatch_dask.service.board.state import Board

__all__ = ("BoardPlugin", "board_link", "install_board")

_log = logging.getLogger(__name__)
_MOST_BOARDS = 20
"""The scheduler forgets the runs that it has not heard of for longest."""


@dataclass(slots=True)
class Watched:
    """One run: its board and the bytes of its pictures."""

    board: Board
    pictures: dict[str, bytes] = field(default_factory=dict)


class BoardPlugin(SchedulerPlugin):
    """Keeps the boards and serves them under ``/bgmatch/`` on the scheduler's HTTP server."""

    name = "bgmatch-board"
    idempotent = True

    def __init__(self) -> None:
        self.runs: OrderedDict[str, Watched] = OrderedDict()
        self._scheduler: Scheduler | None = None

    async def start(self, scheduler: Scheduler) -> None:
        """Begin to listen and add our page; where it is there already, the older one answers."""
        self._scheduler = scheduler
        from distributed.http.utils import get_handlers

        from bgmatch_dask.service.board import routes

        handlers = get_handlers(scheduler, [routes.__name__])
        scheduler.http_application.add_handlers(r".*", handlers)
        # The scheduler unpickles tasks. Without this, the first one would make it load all that
        # tasks import, and answer nobody for seconds.
        await asyncio.to_thread(import_module, "bgmatch_dask.pipeline.run")

    def log_event(self, topic: str, msg: Any) -> None:  # noqa: ANN401
        """Take in a message of the event log."""
        if topic != TOPIC:
            return
        try:
            self.take(msg)
        except (TypeError, ValueError, KeyError, AttributeError):
            # Whoever reaches the scheduler can log under this topic.
            _log.warning("A message of the topic %r is not one of ours", TOPIC, exc_info=True)

    def take(self, msg: Mapping[str, Any]) -> None:
        """Apply the events of a message to the board that it names."""
        key = str(msg["board"])
        watched = self.runs.setdefault(key, Watched(open_board(key)))
        for item in msg["events"]:
            event = from_message(item)
            if event is None:
                continue
            watched.board = apply_event(watched.board, event, float(item["at"]))
            if isinstance(event, Picture):
                watched.pictures[event.name] = event.png
        self.runs.move_to_end(key)
        while len(self.runs) > _MOST_BOARDS:
            self.runs.popitem(last=False)

    def live_workers(self) -> dict[str, LiveWorker]:
        """Return what the scheduler knows of its workers at this moment."""
        if self._scheduler is None:
            return {}
        return {
            str(worker.name): LiveWorker(
                int(worker.metrics.get("memory", 0)),
                int(worker.memory_limit or 0),
                int(worker.metrics.get("executing", 0)),
            )
            for worker in self._scheduler.workers.values()
        }


def install_board(client: Client) -> None:
    """Let the scheduler of a client keep and show boards; does nothing the second time."""
    client.register_plugin(BoardPlugin())


def board_link(client: Client, key: str | None = None) -> str:
    """Return the address of the board page on the scheduler that the client is connected to.

    Parameters
    ----------
    client
        A connected client.
    key
        Board to open; default: the newest.
    """
    return page_of(str(client.dashboard_link), key)
