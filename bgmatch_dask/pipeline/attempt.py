"""One unit on its worker: carried out, tried again when that can help, and measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from blake3 import blake3

from bgmatch_dask.errors import StoreError
from bgmatch_dask.store.receipt import Receipt
from bgmatch_dask.store.traffic import Written, recorded

__all__ = ("TRIES", "UnitWork", "file_checksum")

Task = TypeVar("Task")

TRIES = 3
"""How often a unit is tried when the storage fails."""

_TRANSIENT = frozenset({"store-read", "store-write", "store-unreachable"})
"""Codes of faults that may pass. Bad input, bad bytes and a full disk stay what they are."""


class UnitWork:
    """Carries out tasks of one stage; picklable, so that a worker can.

    Parameters
    ----------
    function
        Carries out one task and returns its receipt.
    pause
        Seconds before the second try; twice as long before the third.
    """

    def __init__(self, function: Callable[[Any], Receipt], pause: float = 1.0) -> None:
        self.function = function
        self.pause = pause

    def __call__(self, task: Any) -> Receipt:  # noqa: ANN401
        """Return the receipt of a task with all that can be told from outside."""
        attempt = 1
        while True:
            try:
                return self._try(task, attempt)
            except StoreError as error:
                if error.code not in _TRANSIENT or attempt == TRIES:
                    raise
            time.sleep(self.pause * attempt)
            attempt += 1

    def _try(self, task: Any, attempt: int) -> Receipt:  # noqa: ANN401
        started = time.time()
        _forget_peak()
        with recorded() as traffic:
            receipt = self.function(task)
        return replace(
            receipt,
            attempt=attempt,
            started=started,
            inputs=receipt.inputs or _inputs(getattr(task, "files", ())),
            written=traffic.written,
        )


def _inputs(files: Iterable[Any]) -> tuple[Written, ...]:
    return tuple(Written(f.path, f.size, file_checksum(f.path)) for f in files)


def file_checksum(path: str) -> str:
    """Return the BLAKE3 checksum of a file's contents; empty for what is no readable file."""
    try:
        return blake3().update_mmap(path).hexdigest(16)
    except (OSError, ValueError):
        return ""


def _forget_peak() -> None:
    """Let the kernel count the largest memory of this process anew, where it can."""
    try:
        Path("/proc/self/clear_refs").write_bytes(b"5")
    except OSError:
        return
