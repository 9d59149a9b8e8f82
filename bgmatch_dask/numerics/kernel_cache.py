"""What numba keeps of a kernel on disk, with one process at a time that compiles it.

The workers of a new machine need the same kernels at the same moment: the first of them compiles,
the others wait for what it writes. Two that write at once could also take each other's file.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache

if sys.platform != "win32":
    import fcntl

__all__ = ("KernelCache",)

_PATIENCE = 60.0
"""Seconds to wait for another process: some times what the largest kernel takes. It may have failed
to compile, or a lock of a network file system may be lost."""
_PAUSE = 0.02


class KernelCache(FunctionCache):
    """The cache of one kernel. A lock ends with the process that holds it, however it ends."""

    _lock: int | None = None

    def load_overload(self, sig: Any, target_context: Any) -> Any:  # noqa: ANN401
        """Return what is kept for a signature; None means that the caller is to compile it."""
        found = super().load_overload(sig, target_context)
        if found is None and self._acquire():
            # Someone may have compiled it meanwhile.
            found = super().load_overload(sig, target_context)
            if found is not None:
                self._release()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:  # noqa: ANN401
        """Keep what was compiled for a signature, and let others have it."""
        try:
            super().save_overload(sig, data)
        finally:
            self._release()

    def _acquire(self) -> bool:
        """Whether it was worth waiting: False where files cannot be locked, or not in time."""
        if sys.platform == "win32" or self._lock is not None:
            return False
        with suppress(OSError):
            self._impl.locator.ensure_cache_path()
            lock = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if _locked(lock):
                    self._lock, lock = lock, -1
                    return True
            finally:
                if lock >= 0:
                    os.close(lock)
        return False

    def _release(self) -> None:
        if self._lock is not None:
            # Not by closing alone: a process that was forked meanwhile has it open too.
            with suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = None

    @property
    def lock_file(self) -> Path:
        """The file that is locked, beside what is kept."""
        return Path(self.cache_path) / f"{self._impl.filename_base}.lock"


def _locked(file: int) -> bool:
    """Lock a file, and wait for that if it must be."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(_PAUSE)
        else:
            return True
