"""Signals at moments that do not stand being broken off."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

__all__ = ("deaf_to", "put_off")


@contextmanager
def deaf_to(*signals: signal.Signals) -> Iterator[None]:
    """Hear signals only afterwards; threads and processes that start here never hear them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It gives the thread that starts it its hearing back, and is started once.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(signals))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def put_off(number: signal.Signals) -> Iterator[None]:
    """Handle a signal only afterwards; processes that start here hear it at once.

    What begins and ends a cluster does not stand being broken off by what a handler raises.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = signal.signal(number, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(number, before)
        if heard:
            signal.raise_signal(number)
