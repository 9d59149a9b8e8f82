"""Part `peers`: other programs on the same pixels, each in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.progress import Progress
    from benchmarks.results import PartResult
    from benchmarks.sizes import Size

__all__ = ("run",)


def run(size: Size, work: Path, progress: Progress) -> PartResult:
    """Run all programs that are installed."""
    # The processes of other programs import this package, and shall not carry ours.
    from benchmarks.peers.part import run_peers

    return run_peers(size, work, progress)
