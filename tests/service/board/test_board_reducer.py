"""Events in, board out: a pure function whose result is what people are shown."""

from __future__ import annotations

import json
import time

import jsonschema
import pytest

from bgmatch_dask.errors import Rejected, StoreError
from bgmatch_dask.pipeline.events import (
    Note,
    Picture,
    RunEnded,
    RunStarted,
    StageEnded,
    StageStarted,
    UnitDone,
    UnitsKept,
    UnitStarted,
    from_message,
    to_message,
)
from bgmatch_dask.service.board import (
    Cell,
    apply_event,
    board_from_json,
    board_schema,
    board_to_json,
    open_board,
)

BAD = Rejected("fits-truncated", "It ends early.", "<b>a</b>.fits")
START = RunStarted("main", "file:///t.zarr", "t", "r", "nJy", ("a/b", "c"), 2, 1, "1110", (BAD,))


def play(*events, start=START):
    board = open_board("k")
    for second, event in enumerate([start, *events], start=100):
        board = apply_event(board, event, float(second))
    return board


def ingest(unit, **more):
    return UnitDone("ingest", unit, 1.0, **{"rejected": (), **more})


def test_a_run_begins_with_the_plan():
    board = play()
    assert (board.outcome, board.run, board.visits) == ("running", "main", ("a/b", "c"))
    assert board.cells == "www."
    assert board.rejected == (BAD,)
    assert board.started == board.updated == 100.0


def test_cells_follow_the_units_through_the_stages():
    events = [StageStarted("ingest", 3, 0), ingest("a/b/0"), ingest("a/b/1"), ingest("c/0")]
    assert play(*events[:2]).cells == "iww."
    assert play(*events).cells == "iii."
    events += [StageStarted("difference", 2, 0), UnitDone("difference", "0", 1.0, ())]
    assert play(*events).cells == "did."
    events += [StageStarted("solve", 1, 0), StageEnded("solve", 0.5)]
    assert play(*events).cells == "mmm."
    events += [StageStarted("coadd", 2, 0), UnitDone("coadd", "1", 1.0, ())]
    board = play(*events)
    assert board.cells == "mcm."
    assert board.row(0) == "mc"
    assert board.count(Cell.COADDED) == 1


def test_warps_without_pixels_stay_out_of_later_stages():
    other = Rejected("no-wcs", "There is none.", "b.fits")
    board = play(
        StageStarted("ingest", 3, 0),
        ingest("a/b/0", usable=False, rejected=(other,)),
        ingest("a/b/1", usable=False),
        ingest("c/0", rejected=(other,)),
        StageStarted("coadd", 2, 0),
        UnitDone("coadd", "0", 1.0, ()),
    )
    assert board.cells == "rec."
    assert board.rejected == (BAD, other)
    assert board.n_rejected == 2


def test_what_an_earlier_run_did_is_shown_as_done():
    kept = UnitsKept("ingest", ("a/b/0", "a/b/1"), ("a/b/1",), (BAD,))
    board = play(StageStarted("ingest", 3, 2), kept)
    assert board.cells == "iew."
    assert (board.stages[0].done, board.stages[0].kept, board.n_rejected) == (2, 2, 1)


def test_the_time_left_is_that_of_the_units_of_this_run():
    stage = play(StageStarted("ingest", 12, 2), ingest("a/b/0"), ingest("a/b/1")).stages[0]
    # It began at 101; two units in ten seconds leave eight units for forty.
    assert stage.seconds_left(111.0) == pytest.approx(40.0)
    assert play(StageStarted("ingest", 12, 2)).stages[0].seconds_left(500.0) is None
    ended = play(StageStarted("ingest", 12, 2), StageEnded("ingest", 9.0)).stages[0]
    assert (ended.seconds_left(500.0), ended.done, ended.seconds) == (0.0, 12, 9.0)


def test_workers_bytes_and_units_in_work_are_counted():
    board = play(
        StageStarted("ingest", 3, 0),
        UnitStarted("ingest", "a/b/0", "w1", 4_000),
        UnitStarted("ingest", "c/0", "w0", 4_000),
        UnitStarted("ingest", "c/0", "w1", 4_000),
        ingest("a/b/0", worker="w1", n_bytes=70, peak_bytes=900),
        ingest("a/b/1", worker="w1", n_bytes=30, peak_bytes=800),
    )
    assert [w.name for w in board.workers] == ["w0", "w1"]
    assert board.workers[1].units == 2
    assert board.workers[1].peak_bytes == 900
    assert board.workers[1].memory_limit == 4_000
    assert board.stages[0].n_bytes == 100
    assert [(w.unit, w.worker) for w in board.working] == [("c/0", "w1")]
    assert play(UnitStarted("ingest", "c/0", "w1"), RunEnded("failed", "why")).working == ()


def test_units_that_the_board_does_not_know_change_no_cell():
    before = play(StageStarted("ingest", 3, 0)).cells
    for unit in ("x/0", "c/9", "nonsense", "9", ""):
        assert play(StageStarted("ingest", 3, 0), ingest(unit)).cells == before


def test_a_newer_picture_takes_the_place_of_the_older():
    board = play(
        Picture("after", "after", "1 of 2", b"old"),
        Picture("offset-0", "offset", "a/b", b"map"),
        Picture("after", "after", "2 of 2", b"new"),
    )
    assert [(p.name, p.label) for p in board.pictures] == [("after", "2 of 2"), ("offset-0", "a/b")]
    assert (
        board.pictures[0].version != play(Picture("after", "after", "", b"old")).pictures[0].version
    )


def test_the_end_is_told():
    board = play(Note("half way"), RunEnded("interrupted", "Ctrl-C"))
    assert (board.outcome, board.text, board.over) == ("interrupted", "Ctrl-C", True)
    assert board.notes == ("half way",)


EVENTS = [
    START,
    StageStarted("ingest", 3, 1),
    UnitsKept("ingest", ("c/0",), ("c/0",), (BAD,)),
    UnitStarted("ingest", "a/b/0", "w0", 5),
    ingest("a/b/0", worker="w0", rejected=(BAD,)),
    StageEnded("ingest", 2.0),
    Picture("after", "after", "1 of 2", b"\x89PNG\x00"),
    Note("half way"),
    RunEnded("finished", ""),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_travel_as_json(event):
    assert from_message(json.loads(json.dumps(to_message(event)))) == event


def test_an_event_of_another_version_is_passed_over():
    assert from_message({"event": "Parade", "colour": "red"}) is None
    assert from_message({**to_message(Note("a")), "colour": "red"}) == Note("a")


def test_a_board_travels_as_json_of_its_schema():
    board = play(*EVENTS[1:])
    data = json.loads(json.dumps(board_to_json(board)))
    jsonschema.validate(data, board_schema())
    assert board_from_json(data) == board
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "cells": "<"}, board_schema())
    for damaged in ({**data, "schema": 99}, {**data, "stages": [{}]}, {}):
        with pytest.raises(StoreError, match="board-unreadable"):
            board_from_json(damaged)


def test_a_large_tract_stays_light():
    """200 visits x 100 patches: all events of ingest and coadd, then one small message."""
    visits = tuple(f"visit-{i:06d}" for i in range(200))
    board = apply_event(
        open_board("k"), RunStarted("r", "s", "t", "r", "nJy", visits, 10, 10, "1" * 20_000), 0.0
    )
    board = apply_event(board, StageStarted("ingest", 20_000, 0), 0.0)
    start = time.process_time()
    for index in range(20_000):
        done = ingest(f"{visits[index % 200]}/{index // 200}", worker="w0")
        board = apply_event(board, done, float(index))
    seconds = time.process_time() - start
    assert board.count(Cell.INGESTED) == 20_000
    assert len(json.dumps(board_to_json(board))) < 40_000
    # One hundredth of a second per unit would already be far too slow; it takes some ten µs.
    assert seconds / 20_000 < 1e-3
