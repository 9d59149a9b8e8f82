"""From events to the board: one pure function."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from bgmatch_dask.errors import Rejected
from bgmatch_dask.pipeline.events import (
    Event,
    Note,
    Picture,
    RunEnded,
    RunStarted,
    StageEnded,
    StageStarted,
    UnitDone,
    UnitsKept,
    UnitStarted,
)
from bgmatch_dask.service.board.state import (
    Board,
    Cell,
    PictureRef,
    Stage,
    WorkerState,
    Working,
)

__all__ = ("MOST_REJECTED", "apply_event", "open_board")

MOST_REJECTED = 500
"""Rejected inputs beyond these are counted, not listed."""
_MOST_NOTES = 20
_USABLE = Cell.INGESTED + Cell.DIFFERENCED + Cell.MATCHED + Cell.COADDED
_REACHED = {
    "ingest": Cell.INGESTED,
    "difference": Cell.DIFFERENCED,
    "per_warp": Cell.MATCHED,
    "match": Cell.MATCHED,
    "coadd": Cell.COADDED,
}
"""State that a usable warp has reached when a unit of a stage is done."""
_REACHED_AT_END = {"solve": Cell.MATCHED}
"""The same for stages that have no units: all warps reach it when the stage ends."""


def open_board(key: str) -> Board:
    """Return the board of a run that has not begun."""
    return Board(key)


def apply_event(board: Board, event: Event, at: float) -> Board:
    """Return the board after an event.

    Parameters
    ----------
    board
        The board before.
    event
        What happened. Events of units that the board does not know change no cell.
    at
        When it happened [s since 1970].
    """
    after = _REDUCERS[type(event)](board, event, at)
    return replace(after, version=board.version + 1, updated=max(at, board.updated))


def _run_started(board: Board, event: RunStarted, at: float) -> Board:
    return replace(
        Board(board.key),
        run=event.run,
        store=event.store,
        tract=event.tract,
        band=event.band,
        unit=event.unit,
        outcome="running",
        started=at,
        visits=event.visits,
        nx=event.nx,
        ny=event.ny,
        cells=event.planned.translate({ord("0"): Cell.NONE.value, ord("1"): Cell.WAITING.value}),
        rejected=event.rejected[:MOST_REJECTED],
        n_rejected=len(event.rejected),
        notes=board.notes,
        # Workers speak for themselves and may be heard before the driver.
        working=tuple(item for item in board.working if item.since >= at),
        workers=tuple(worker for worker in board.workers if worker.seen >= at),
    )


def _stage_started(board: Board, event: StageStarted, at: float) -> Board:
    stage = Stage(event.stage, event.total, event.done, event.done, at)
    others = tuple(s for s in board.stages if s.name != event.stage)
    return replace(board, stages=(*others, stage))


def _units_kept(board: Board, event: UnitsKept, at: float) -> Board:
    del at
    empty = set(event.empty)
    cells = bytearray(board.cells, "ascii")
    for unit in event.units:
        _advance(board, cells, event.stage, unit, Cell.EMPTY if unit in empty else None)
    return _with_rejected(replace(board, cells=cells.decode()), event.rejected)


def _unit_started(board: Board, event: UnitStarted, at: float) -> Board:
    others = tuple(w for w in board.working if (w.stage, w.unit) != (event.stage, event.unit))
    working = (*others, Working(event.stage, event.unit, event.worker, at))
    worker = _worker(board, event.worker)
    worker = replace(worker, memory_limit=event.memory_limit, seen=at)
    return replace(board, working=working, workers=_with_worker(board, worker))


def _unit_done(board: Board, event: UnitDone, at: float) -> Board:
    cells = bytearray(board.cells, "ascii")
    useless = Cell.REJECTED if event.rejected else Cell.EMPTY
    _advance(board, cells, event.stage, event.unit, None if event.usable else useless)
    done = (event.stage, event.unit)
    board = replace(
        board,
        cells=cells.decode(),
        stages=tuple(_counted(s, event) if s.name == event.stage else s for s in board.stages),
        working=tuple(w for w in board.working if (w.stage, w.unit) != done),
    )
    if event.worker:
        worker = _worker(board, event.worker)
        worker = replace(
            worker,
            units=worker.units + 1,
            unit_seconds=worker.unit_seconds + event.seconds,
            peak_bytes=max(worker.peak_bytes, event.peak_bytes),
            seen=at,
        )
        board = replace(board, workers=_with_worker(board, worker))
    return _with_rejected(board, event.rejected)


def _counted(stage: Stage, event: UnitDone) -> Stage:
    return replace(
        stage,
        done=min(stage.done + 1, stage.total),
        unit_seconds=stage.unit_seconds + event.seconds,
        n_bytes=stage.n_bytes + event.n_bytes,
        rejected=stage.rejected + len(event.rejected),
    )


def _stage_ended(board: Board, event: StageEnded, at: float) -> Board:
    stages = tuple(
        replace(s, ended=at, seconds=event.seconds, done=s.total) if s.name == event.stage else s
        for s in board.stages
    )
    cells = board.cells
    if event.stage in _REACHED_AT_END:
        cells = _raised(cells, _REACHED_AT_END[event.stage])
    working = tuple(w for w in board.working if w.stage != event.stage)
    return replace(board, stages=stages, cells=cells, working=working)


def _picture(board: Board, event: Picture, at: float) -> Board:
    del at
    version = f"{zlib.crc32(event.png):08x}"
    picture = PictureRef(event.name, event.kind, event.label, version)
    names = [p.name for p in board.pictures]
    if event.name not in names:
        return replace(board, pictures=(*board.pictures, picture))
    place = names.index(event.name)
    pictures = (*board.pictures[:place], picture, *board.pictures[place + 1 :])
    return replace(board, pictures=pictures)


def _note(board: Board, event: Note, at: float) -> Board:
    del at
    return replace(board, notes=(*board.notes, event.text)[-_MOST_NOTES:])


def _run_ended(board: Board, event: RunEnded, at: float) -> Board:
    del at
    return replace(board, outcome=event.outcome, text=event.text, working=())


_REDUCERS: dict[type[Any], Callable[[Board, Any, float], Board]] = {
    RunStarted: _run_started,
    StageStarted: _stage_started,
    UnitsKept: _units_kept,
    UnitStarted: _unit_started,
    UnitDone: _unit_done,
    StageEnded: _stage_ended,
    Picture: _picture,
    Note: _note,
    RunEnded: _run_ended,
}


def _advance(board: Board, cells: bytearray, stage: str, unit: str, useless: Cell | None) -> None:
    """Write into the cells what a unit has reached; a patch raises all its visits."""
    reached = _REACHED.get(stage)
    patch, visit = _place(board, unit)
    if reached is None or patch is None:
        return
    if visit is None:
        column = slice(patch, None, board.n_patches)
        cells[column] = _raised(cells[column].decode(), reached).encode()
        return
    index = visit * board.n_patches + patch
    cells[index] = ord(useless or reached)


def _raised(cells: str, reached: Cell) -> str:
    """Raise all usable warps to a state, those already beyond it excepted."""
    below = _USABLE[: _USABLE.index(reached)]
    return cells.translate({ord(cell): reached.value for cell in below})


def _place(board: Board, unit: str) -> tuple[int | None, int | None]:
    """Return the patch and the visit of a unit; None for what it does not name or we not know."""
    visit, slash, patch = unit.rpartition("/")
    if not patch.isdecimal() or int(patch) >= board.n_patches:
        return None, None
    if not slash:
        return int(patch), None
    if visit not in board.visits:
        return None, None
    return int(patch), board.visits.index(visit)


def _worker(board: Board, name: str) -> WorkerState:
    return next((w for w in board.workers if w.name == name), WorkerState(name))


def _with_worker(board: Board, worker: WorkerState) -> tuple[WorkerState, ...]:
    others = [w for w in board.workers if w.name != worker.name]
    return tuple(sorted([*others, worker], key=lambda w: w.name))


def _with_rejected(board: Board, rejected: Iterable[Rejected]) -> Board:
    listed, n_rejected = board.rejected, board.n_rejected
    for item in rejected:
        # A file that touches several patches is rejected by each; people want to read it once.
        if item in listed:
            continue
        n_rejected += 1
        if len(listed) < MOST_REJECTED:
            listed = (*listed, item)
    return replace(board, rejected=listed, n_rejected=n_rejected)
