"""Our page on the scheduler's HTTP server.

`BoardPlugin` adds these routes when a run begins. To have them from the start, name this module in
Dask's configuration under ``distributed.scheduler.http.routes``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import quote

from distributed.http.utils import RequestHandler

from bgmatch_dask.service.board.codec import board_to_json
from bgmatch_dask.service.board.metrics import CONTENT_TYPE, metrics_text
from bgmatch_dask.service.board.plugin import BoardPlugin, Watched
from bgmatch_dask.service.board.render import render_board, render_pictures
from bgmatch_dask.service.board.state import PictureRef

__all__ = ("routes",)

_TEMPLATES = Path(__file__).parent / "templates"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


class _Handler(RequestHandler):
    """What all routes share: nothing but what is ours may run in the reader's browser."""

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-cache")

    @property
    def plugin(self) -> BoardPlugin:
        """The plugin that keeps the boards; an empty one before the first run."""
        plugin = self.server.plugins.get(BoardPlugin.name)
        return plugin if isinstance(plugin, BoardPlugin) else BoardPlugin()

    def watched(self) -> Watched | None:
        """Return the run that is asked for, the newest by default; answer 404 without."""
        runs = self.plugin.runs
        key = self.get_query_argument("board", next(reversed(runs), ""))
        if key not in runs:
            self.send_error(404, reason="There is no such board")
            return None
        return runs[key]

    def send(self, text: str, kind: str) -> None:
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        self.finish(text)


class PageHandler(_Handler):
    """The page and the files that belong to it."""

    def initialize(self, dask_server: object = None, file: str = "page.html") -> None:
        super().initialize(dask_server)
        self.file = _TEMPLATES / file

    def get(self) -> None:
        """Send the file."""
        self.send(self.file.read_text(encoding="utf-8"), _TYPES[self.file.suffix])


class ToPageHandler(_Handler):
    """The address without its slash."""

    def get(self) -> None:
        """Send the browser on; relative, so that it works behind a proxy."""
        self.redirect("bgmatch/")


class BoardsHandler(_Handler):
    """All runs, newest first."""

    def get(self) -> None:
        """Send the list."""
        boards = [watched.board for watched in reversed(self.plugin.runs.values())]
        facts = [
            {
                "key": b.key,
                "tract": b.tract,
                "run": b.run,
                "outcome": b.outcome,
                "updated": b.updated,
            }
            for b in boards
        ]
        self.send(json.dumps(facts), "application/json")


class BoardHandler(_Handler):
    """One run as JSON."""

    def get(self) -> None:
        """Send the board; its schema is that of `bgmatch_dask.service.board.board_schema`."""
        if (found := self.watched()) is not None:
            self.send(json.dumps(board_to_json(found.board)), "application/json")


class FragmentHandler(_Handler):
    """One run as HTML."""

    def get(self) -> None:
        """Send the board without its pictures."""
        if (found := self.watched()) is not None:
            html = render_board(found.board, time.time(), self.plugin.live_workers())
            self.send(html, "text/html")


class PicturesHandler(_Handler):
    """The pictures of one run as HTML."""

    def get(self) -> None:
        """Send figures whose images are served by `PictureHandler`."""
        if (found := self.watched()) is None:
            return
        key = quote(found.board.key, safe="")

        def source(picture: PictureRef) -> str:
            return f"picture?board={key}&name={quote(picture.name)}&v={picture.version}"

        self.send(render_pictures(found.board, source), "text/html")


class PictureHandler(_Handler):
    """One picture."""

    def get(self) -> None:
        """Send the image."""
        if (found := self.watched()) is None:
            return
        png = found.pictures.get(self.get_query_argument("name", ""))
        if png is None:
            self.send_error(404, reason="There is no such picture")
            return
        self.set_header("Content-Type", "image/png")
        self.finish(png)


class HealthHandler(_Handler):
    """For probes."""

    def get(self) -> None:
        """Say that the scheduler answers, and what it has heard of."""
        runs = [watched.board for watched in self.plugin.runs.values()]
        facts = {
            "status": "ok",
            "workers": len(self.plugin.live_workers()),
            "runs": len(runs),
            "running": sum(board.outcome == "running" for board in runs),
        }
        self.send(json.dumps(facts), "application/json")


class MetricsHandler(_Handler):
    """For Prometheus."""

    def get(self) -> None:
        """Send the metrics of all runs."""
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(metrics_text(w.board for w in self.plugin.runs.values()))


routes: list[tuple[str, type[RequestHandler], dict[str, str]]] = [
    ("/bgmatch", ToPageHandler, {}),
    ("/bgmatch/", PageHandler, {}),
    ("/bgmatch/board.css", PageHandler, {"file": "board.css"}),
    ("/bgmatch/board.js", PageHandler, {"file": "board.js"}),
    ("/bgmatch/boards.json", BoardsHandler, {}),
    ("/bgmatch/board.json", BoardHandler, {}),
    ("/bgmatch/fragment.html", FragmentHandler, {}),
    ("/bgmatch/pictures.html", PicturesHandler, {}),
    ("/bgmatch/picture", PictureHandler, {}),
    ("/bgmatch/health", HealthHandler, {}),
    ("/bgmatch/metrics", MetricsHandler, {}),
]
