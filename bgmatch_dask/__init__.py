"""Background matching of many visits of one tract, on a Dask cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bgmatch_dask.pipeline.view import open_offsets, open_tract
    from bgmatch_dask.service.board.monitor import monitor

__all__ = ("__version__", "monitor", "open_offsets", "open_tract")

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Load what is heavy when it is first asked for, so that importing the package is cheap."""
    if name in {"open_offsets", "open_tract"}:
        from bgmatch_dask.pipeline import view

        return getattr(view, name)
    if name == "monitor":
        from bgmatch_dask.service.board.monitor import monitor

        return monitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
