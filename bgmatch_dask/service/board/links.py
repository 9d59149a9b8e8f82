"""Addresses of the board's page."""

from __future__ import annotations

from urllib.parse import quote, urlsplit, urlunsplit

__all__ = ("page_of",)


def page_of(dashboard: str, key: str | None = None) -> str:
    """Return the address of the board's page beside a dashboard's.

    Parameters
    ----------
    dashboard
        Address of any page of the dashboard, or of the board.
    key
        Board to open; default: the newest.
    """
    parts = urlsplit(dashboard)
    path = parts.path.removesuffix("/status").rstrip("/")
    path = path if path.endswith("/bgmatch") else path + "/bgmatch"
    query = "" if key is None else f"board={quote(key, safe='')}"
    return urlunsplit((parts.scheme, parts.netloc, path + "/", query, ""))
