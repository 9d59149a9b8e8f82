"""Where a watcher reads a board from: a store, or the page of a scheduler."""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, quote, urlsplit

from distributed import Client

from bgmatch_dask.errors import ClusterError, ConfigError, StoreError
from bgmatch_dask.pipeline.events import Picture
from bgmatch_dask.service.board.codec import board_from_json
from bgmatch_dask.service.board.feed import board_path, picture_path
from bgmatch_dask.service.board.links import page_of
from bgmatch_dask.service.board.pictures import MosaicPainter, offset_pictures
from bgmatch_dask.service.board.plugin import board_link
from bgmatch_dask.service.board.reducer import apply_event
from bgmatch_dask.service.board.replay import replay_board
from bgmatch_dask.service.board.state import Board, PictureRef
from bgmatch_dask.store import Location, open_store

__all__ = ("BoardSource", "PageSource", "StoreSource", "source_of")

_TIMEOUT = 10.0
_JOB = re.compile(r"\d{8}-\d{6}-[0-9a-f]+")
"""Identifiers of jobs, see `bgmatch_dask.service.jobs.record.new_record`."""


class BoardSource(Protocol):
    """Gives the newest board and its pictures."""

    def board(self) -> Board | None:
        """Return the newest board; None when there is none yet."""
        ...

    def picture(self, ref: PictureRef) -> bytes:
        """Return the image of a picture of the board."""
        ...


class StoreSource:
    """Reads what `BoardFeed` writes into the store; works wherever the store can be reached.

    Parameters
    ----------
    location, run
        The store and the run in it.
    """

    def __init__(self, location: Location, run: str) -> None:
        self.location, self.run = location, run
        self._drawn: dict[str, bytes] = {}

    def board(self) -> Board | None:
        """Return the board in the store; one made from the receipts where nobody wrote one."""
        try:
            return board_from_json(self.location.read_json(board_path(self.run)))
        except StoreError as error:
            if error.code != "object-missing":
                raise
        board = replay_board(self.location, self.run)
        return board if board is None else self._with_pictures(board)

    def _with_pictures(self, board: Board) -> Board:
        store = open_store(self.location.url)
        pictures: list[Picture] = list(offset_pictures(store, self.run))
        painter = MosaicPainter(store, self.run)
        for patch in range(board.n_patches):
            try:
                painter.add(patch)
            except StoreError as error:
                if error.code != "object-missing":
                    raise
        for picture in [*pictures, *painter.pictures()]:
            self._drawn[picture.name] = picture.png
            board = apply_event(board, picture, 0.0)
        return board

    def picture(self, ref: PictureRef) -> bytes:
        """Return an image."""
        if ref.name in self._drawn:
            return self._drawn[ref.name]
        return self.location.read_bytes(picture_path(self.run, ref.name))


class PageSource:
    """Reads from the page of a scheduler.

    Parameters
    ----------
    url
        Address of the page, with or without ``?board=…``.
    key
        Key of the board; default: that of the address, else the newest.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = page_of(url)
        self.key = key or parse_qs(urlsplit(url).query).get("board", [""])[0] or None

    def board(self) -> Board | None:
        """Return the board that the scheduler has; None when it has none.

        Raises
        ------
        ClusterError
            ``board-unreachable`` when the scheduler does not answer.
        """
        query = f"?board={quote(self.key, safe='')}" if self.key else ""
        data = self._get("board.json" + query)
        return None if data is None else board_from_json(json.loads(data))

    def picture(self, ref: PictureRef) -> bytes:
        """Return an image."""
        query = f"?name={quote(ref.name)}"
        if self.key:
            query += f"&board={quote(self.key, safe='')}"
        return self._get("picture" + query) or b""

    def _get(self, path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(self.url + path, timeout=_TIMEOUT) as answer:  # noqa: S310
                data: bytes = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
            raise self._unreachable(error) from error
        except (OSError, ssl.SSLError) as error:
            raise self._unreachable(error) from error
        return data

    def _unreachable(self, error: Exception) -> ClusterError:
        return ClusterError(
            "board-unreachable",
            f"The page of the scheduler does not answer: {error}",
            where=self.url,
            fix="Check the address, or give the store instead: it holds the same board.",
        )


def source_of(target: Any, run: str = "main") -> BoardSource:  # noqa: ANN401
    """Return where the board of a run is read from.

    Parameters
    ----------
    target
        Path or URL of a store; address of a board or dashboard page (``http…``); address of a
        scheduler (``tcp…``, ``tls…``) or a connected client; or an object with attributes
        ``store`` and ``run``; or the identifier of a job
        that this machine has submitted (its first run).
    run
        Name of the run, for a store.

    Raises
    ------
    ConfigError
        ``watch-target`` when the target is none of these.
    """
    if isinstance(target, Client):
        return PageSource(board_link(target))
    if hasattr(target, "store") and hasattr(target, "run"):
        return StoreSource(Location.of(str(target.store)), str(target.run))
    if not isinstance(target, str) and not hasattr(target, "__fspath__"):
        raise ConfigError(
            "watch-target",
            f"A {type(target).__name__} cannot be watched",
            fix="Give a store, the address of a board page or of a scheduler, or a client.",
        )
    text = str(target)
    if text.startswith(("http://", "https://")):
        return PageSource(text)
    if text.startswith(("tcp://", "tls://")):
        with Client(text, timeout=f"{_TIMEOUT:.0f}s", set_as_default=False) as client:
            return PageSource(board_link(client))
    if _JOB.fullmatch(text) and not Path(text).exists():
        return _source_of_job(text)
    return StoreSource(Location.of(text), run)


def _source_of_job(job: str) -> StoreSource:
    from bgmatch_dask.service.jobs.find import Where, find_job

    first = find_job(job, Where()).record.runs[0]
    return StoreSource(Location.of(first.store), first.run)
