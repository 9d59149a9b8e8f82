"""The tract board: what a run is doing, as one small frozen value, and all ways to show it."""

from bgmatch_dask.service.board.codec import board_from_json, board_schema, board_to_json
from bgmatch_dask.service.board.reducer import apply_event, open_board
from bgmatch_dask.service.board.state import Board, Cell, PictureRef, Stage, WorkerState, Working

__all__ = (
    "Board",
    "Cell",
    "PictureRef",
    "Stage",
    "WorkerState",
    "Working",
    "apply_event",
    "board_from_json",
    "board_schema",
    "board_to_json",
    "open_board",
)
