import io
import sys

import pytest
from rich.console import Console

from bgmatch_dask.errors import Rejected
from bgmatch_dask.pipeline.events import Note, StageEnded, StageStarted, UnitDone
from bgmatch_dask.service.progress import LineProgress, RichProgress, progress_listener

BAD = (Rejected("fits-truncated", "It ends [red]early", "a[0].fits"),)
EVENTS = [
    StageStarted("ingest", 4, 1),
    UnitDone("ingest", "a/0", 0.1, ()),
    UnitDone("ingest", "a/1", 0.1, BAD),
    Note("half [bold] way"),
    UnitDone("ingest", "a/2", 0.1, ()),
    StageEnded("ingest", 1.25),
    StageStarted("coadd", 0, 0),
    StageEnded("coadd", 0.0),
]


def test_lines_say_what_happened(capsys):
    with LineProgress(every=1e9) as listener:
        for event in EVENTS:
            listener(event)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "ingest: 4 unit(s), 1 done before",
        "ingest: rejected [fits-truncated] a[0].fits: It ends [red]early",
        "half [bold] way",
        "ingest: done in 1.2 s",
        "coadd: 0 unit(s)",
        "coadd: done in 0.0 s",
    ]


def test_lines_in_between_tell_the_time_left(capsys):
    listener = LineProgress(every=0.0)
    for event in EVENTS[:3]:
        listener(event)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith("ingest: 2/4, about ")
    assert lines[-1].startswith("ingest: 3/4, about ")


def _drawn():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    with RichProgress(console) as listener:
        for event in EVENTS:
            listener(event)
    return stream.getvalue()


def test_bars_count_units_and_rejections():
    text = _drawn()
    assert "ingest" in text
    assert "4/4" in text
    assert "1 rejected" in text
    assert "half [bold] way" in text


def test_bars_end_with_their_stage():
    stream = io.StringIO()
    with RichProgress(Console(file=stream, force_terminal=True, width=120)) as listener:
        for event in EVENTS:
            listener(event)
        assert [task.finished for task in listener._progress.tasks] == [True, True]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_listener_suits_standard_error(monkeypatch, terminal):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(progress_listener(), RichProgress if terminal else LineProgress)
