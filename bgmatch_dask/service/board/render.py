"""The board as HTML: the same for the dashboard page, Jupyter and converted notebooks.

Runs no script, and every text from outside is escaped by the template engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bgmatch_dask.service.board.state import Board, Cell, PictureRef, WorkerState

__all__ = ("LiveWorker", "board_css", "render_board", "render_pictures")

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_LISTED = 100
"""Rejected inputs and workers beyond these are counted, not listed."""
_WORDS = {
    Cell.WAITING: "waiting",
    Cell.INGESTED: "ingested",
    Cell.DIFFERENCED: "differenced",
    Cell.MATCHED: "matched",
    Cell.COADDED: "in the coadd",
    Cell.EMPTY: "no usable pixel",
    Cell.REJECTED: "rejected",
}
_WIDTH, _HEIGHT = 900.0, 420.0
_SMALLEST, _LARGEST = 2.0, 26.0
_LABELLED = 11.0
"""Rows at least this high carry the label of their visit [CSS pixels]."""


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """What the scheduler knows of a worker at this moment."""

    memory: int
    """Memory in use [bytes]."""
    memory_limit: int
    """Memory that it may use [bytes]."""
    executing: int
    """Tasks that it is working on."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """The drawing of patches × visits; lengths in CSS pixels."""

    cell_width: float
    cell_height: float
    left: float
    paths: tuple[tuple[str, str, int, str], ...]
    """State, its word, number of cells and outline, in units of cells."""
    working: str
    """Outline of the cells in work."""
    labels: tuple[tuple[int, str], ...]
    """Row and label of the visits that are named."""


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(duration=_duration, size=_size)
    return environment


@lru_cache(maxsize=1)
def board_css() -> str:
    """Return the style sheet of the board; all its rules are confined to it."""
    return (_TEMPLATES / "board.css").read_text(encoding="utf-8")


def render_board(board: Board, at: float, live: Mapping[str, LiveWorker] | None = None) -> str:
    """Return the board without its pictures as an HTML fragment.

    Parameters
    ----------
    board
        What is shown.
    at
        The time now [s since 1970]; for the time left.
    live
        Workers of the cluster by name, where a scheduler is at hand.
    """
    now = board.updated if board.over else max(at, board.updated)
    return (
        _environment()
        .get_template("fragment.html")
        .render(
            b=board,
            now=now,
            matrix=_matrix(board),
            workers=_worker_rows(board, live or {})[:_MOST_LISTED],
            more_workers=max(
                len({w.name for w in board.workers} | set(live or {})) - _MOST_LISTED, 0
            ),
            rejected=board.rejected[:_MOST_LISTED],
            more_rejected=board.n_rejected - len(board.rejected[:_MOST_LISTED]),
            waiting=board.outcome == "waiting",
        )
    )


def render_pictures(board: Board, source: Callable[[PictureRef], str]) -> str:
    """Return the pictures of the board as an HTML fragment.

    Parameters
    ----------
    board
        What is shown.
    source
        Gives the address of a picture, or its data URI.
    """
    shown = [(picture, source(picture)) for picture in board.pictures]
    return (
        _environment()
        .get_template("pictures.html")
        .render(
            mosaics=[item for item in shown if item[0].kind != "offset"],
            offsets=[item for item in shown if item[0].kind == "offset"],
            unit=board.unit,
        )
    )


def style_element() -> Markup:
    """Return the style sheet as an element; it is ours and holds nothing from outside."""
    return Markup(f"<style>{board_css()}</style>")  # noqa: S704


def _matrix(board: Board) -> Matrix | None:
    if not board.cells:
        return None
    rows = [board.row(index) for index in range(len(board.visits))]
    height = min(max(_HEIGHT / len(rows), _SMALLEST), _LARGEST)
    width = min(max(_WIDTH / board.n_patches, _SMALLEST), _LARGEST * 1.6)
    paths = tuple(
        (cell.name.lower(), word, board.count(cell), "".join(_runs(rows, cell)))
        for cell, word in _WORDS.items()
    )
    step = max(1, round(_LABELLED / height + 0.49))
    labels = tuple((i, board.visits[i]) for i in range(0, len(rows), step))
    longest = max((len(label) for _, label in labels), default=0)
    left = min(8.0 + 7.0 * longest, 180.0)
    return Matrix(width, height, left, paths, "".join(_working(board, rows)), labels)


def _runs(rows: list[str], cell: Cell) -> Iterator[str]:
    """Yield the outlines of the cells of one state; neighbours in a row share one."""
    for y, row in enumerate(rows):
        for found in re.finditer(re.escape(cell.value) + "+", row):
            n = found.end() - found.start()
            yield f"M{found.start()} {y}h{n}v1h-{n}z"


def _working(board: Board, rows: list[str]) -> Iterator[str]:
    for item in board.working:
        visit, slash, patch = item.unit.rpartition("/")
        if not patch.isdecimal() or int(patch) >= board.n_patches:
            continue
        x = int(patch)
        if slash and visit in board.visits:
            yield f"M{x} {board.visits.index(visit)}h1v1h-1z"
        elif not slash:
            yield from (
                f"M{x} {y}h1v1h-1z" for y, row in enumerate(rows) if row[x] != Cell.NONE.value
            )


def _worker_rows(board: Board, live: Mapping[str, LiveWorker]) -> list[dict[str, Any]]:
    known = {worker.name: worker for worker in board.workers}
    doing: dict[str, list[str]] = {}
    for item in board.working:
        doing.setdefault(item.worker, []).append(f"{item.stage} {item.unit}")
    return [
        _worker_row(known.get(name, WorkerState(name)), live.get(name), doing.get(name, []))
        for name in sorted({*known, *live})
    ]


def _worker_row(worker: WorkerState, live: LiveWorker | None, doing: list[str]) -> dict[str, Any]:
    limit = (live.memory_limit if live else 0) or worker.memory_limit
    used = live.memory if live else worker.peak_bytes
    return {
        "name": worker.name,
        "units": worker.units,
        "mean": worker.unit_seconds / worker.units if worker.units else None,
        "used": used,
        "peak": worker.peak_bytes,
        "limit": limit,
        "share": min(used / limit, 1.0) if limit else 0.0,
        "doing": ", ".join(doing),
    }


def _duration(seconds: float | None) -> str:
    """Return a time for people: about two figures."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _size(n_bytes: float) -> str:
    """Return a number of bytes for people."""
    for factor, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.3g} {name}"
    return f"{n_bytes:.0f} B"
