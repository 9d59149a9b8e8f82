"""Part `peers`: other programs on the same pixels, each in a process of its own."""

from __future__ import annotations

from benchmarks.peers.part import run

__all__ = ("run",)
