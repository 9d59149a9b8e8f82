"""The board in Jupyter: it updates by itself, and what stays in the notebook is plain HTML."""

from __future__ import annotations

import base64
import threading
import time
from typing import Any

from bgmatch_dask.errors import BgmatchError
from bgmatch_dask.service.board.reducer import open_board
from bgmatch_dask.service.board.render import render_board, render_pictures, style_element
from bgmatch_dask.service.board.sources import BoardSource, source_of
from bgmatch_dask.service.board.state import Board, PictureRef

__all__ = ("Monitor", "monitor")


class Monitor:
    """A board that shows itself in Jupyter; made by `monitor`.

    Parameters
    ----------
    source
        Where the board is read from.
    every
        Time between two looks [s].
    """

    def __init__(self, source: BoardSource, *, every: float = 1.0) -> None:
        self._source = source
        self._every = every
        self._board = open_board("")
        self._trouble = ""
        self._images: dict[tuple[str, str], str] = {}
        self._handles: list[Any] = []
        self._shown: tuple[Any, Any] = (None, None)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def board(self) -> Board:
        """The newest board."""
        self._look()
        return self._board

    def wait(self, timeout: float | None = None) -> Board:
        """Wait until the run is over, updating what is shown, and return the last board.

        Raises
        ------
        TimeoutError
            When it is not over after ``timeout`` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            self._refresh()
            if self._board.over:
                return self._board
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"The run is not over after {timeout:g} s: {self!r}")
            time.sleep(self._every)

    def stop(self) -> None:
        """Stop to update; the run goes on."""
        self._stopped.set()

    def __repr__(self) -> str:
        """Return one line."""
        board = self._board
        stage = board.stages[-1] if board.stages else None
        where = f", {stage.name} {stage.done}/{stage.total}" if stage else ""
        return f"<Monitor of {board.tract or 'a run'} {board.run}: {board.outcome}{where}>"

    def _repr_html_(self) -> str:
        """Return the board as it is now, with its pictures: plain HTML without scripts."""
        self._look()
        return f'{style_element()}<div class="bgm">{self._main()}{self._pictures()}</div>'

    def _ipython_display_(self) -> None:
        """Show the board and keep it up to date from a thread until the run is over."""
        from IPython.display import display

        self._look()
        with self._lock:
            self._handles = [display(part, display_id=True) for part in self._parts()]
            self._shown = self._versions()
        if self._thread is None or not self._thread.is_alive():
            self._stopped.clear()
            self._thread = threading.Thread(target=self._work, name="bgmatch-monitor", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while not (self._board.over or self._stopped.wait(self._every)):
            self._refresh()

    def _refresh(self) -> None:
        """Look again and update what is shown, each part only when it has changed."""
        with self._lock:
            self._look()
            if not self._handles:
                return
            versions = self._versions()
            for index, part in enumerate(self._parts()):
                if versions[index] != self._shown[index]:
                    self._handles[index].update(part)
            self._shown = versions

    def _versions(self) -> tuple[Any, Any]:
        board = self._board
        pictures = tuple((p.name, p.version) for p in board.pictures)
        tick = 0 if board.over else int(time.time() / 3.0)
        return (board.version, board.outcome, self._trouble, tick), pictures

    def _parts(self) -> tuple[Any, Any]:
        from IPython.display import HTML

        pictures = self._pictures()
        return (
            HTML(f'{style_element()}<div class="bgm">{self._main()}</div>'),
            HTML(f'<div class="bgm">{pictures}</div>' if pictures else "<div></div>"),
        )

    def _look(self) -> None:
        try:
            board = self._source.board()
        except BgmatchError as error:
            # The run goes on where nobody can look; what was seen last stays.
            self._trouble = str(error)
            return
        self._trouble = ""
        if board is not None:
            self._board = board

    def _main(self) -> str:
        from markupsafe import escape

        html = render_board(self._board, time.time())
        if self._trouble:
            html = f'<p class="bgm-text">{escape(self._trouble)}</p>{html}'
        return html

    def _pictures(self) -> str:
        return render_pictures(self._board, self._image)

    def _image(self, ref: PictureRef) -> str:
        key = (ref.name, ref.version)
        if key not in self._images:
            try:
                png = self._source.picture(ref)
            except BgmatchError:
                return ""
            for old in [k for k in self._images if k[0] == ref.name]:
                del self._images[old]
            self._images[key] = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        return self._images[key]


def monitor(target: Any, run: str = "main", *, every: float = 1.0) -> Monitor:  # noqa: ANN401
    """Watch a run in Jupyter, while it goes on or after it.

    Parameters
    ----------
    target
        Path or URL of the store; address of the board's page or of the scheduler; a connected
        Dask client; or a job.
    run
        Name of the run, for a store.
    every
        Time between two looks [s].

    Returns
    -------
    Monitor
        Put it last in a cell: it shows the board and keeps it up to date.

    Raises
    ------
    ConfigError
        ``watch-target`` when the target cannot be watched.

    Examples
    --------
    >>> bgmatch_dask.monitor("orion.zarr")  # doctest: +SKIP
    """
    return Monitor(source_of(target, run), every=every)
