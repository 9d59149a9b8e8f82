"""The board as JSON, as it lies in the store and is served to browsers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from bgmatch_dask.errors import Rejected, StoreError
from bgmatch_dask.service.board.state import Board, PictureRef, Stage, WorkerState, Working

__all__ = ("SCHEMA_VERSION", "board_from_json", "board_schema", "board_to_json")

SCHEMA_VERSION = 1


def board_to_json(board: Board) -> dict[str, Any]:
    """Return JSON types; the schema is that of `board_schema`.

    Derived values are added for readers: ``over``, and ``seconds_left`` of each stage at the time
    of the newest event.
    """
    data = asdict(board)
    for stage, shown in zip(board.stages, data["stages"], strict=True):
        shown["seconds_left"] = stage.seconds_left(board.updated)
    return {"schema": SCHEMA_VERSION, "over": board.over, **data}


def board_from_json(data: Mapping[str, Any]) -> Board:
    """Return the board that `board_to_json` wrote.

    Raises
    ------
    StoreError
        ``board-unreadable`` when it is of another version or damaged.
    """
    if data.get("schema") != SCHEMA_VERSION:
        raise _unreadable(f"its schema is {data.get('schema')!r}")
    try:
        values = {k: v for k, v in data.items() if k not in {"schema", "over"}}
        return Board(
            **{
                **values,
                "visits": tuple(values["visits"]),
                "notes": tuple(values["notes"]),
                "stages": tuple(_stage(item) for item in values["stages"]),
                "working": tuple(Working(**item) for item in values["working"]),
                "workers": tuple(WorkerState(**item) for item in values["workers"]),
                "rejected": tuple(Rejected(**item) for item in values["rejected"]),
                "pictures": tuple(PictureRef(**item) for item in values["pictures"]),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(str(error)) from error


def _unreadable(why: str) -> StoreError:
    return StoreError(
        "board-unreadable",
        f"The board of this run cannot be read: {why}",
        fix="Use the version of bgmatch that wrote it.",
    )


def _stage(data: Mapping[str, Any]) -> Stage:
    return Stage(**{name: value for name, value in data.items() if name != "seconds_left"})


@lru_cache(maxsize=1)
def board_schema() -> dict[str, Any]:
    """Return the JSON schema of a board."""
    text = (Path(__file__).parent / "board.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
