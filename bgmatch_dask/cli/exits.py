"""Exit codes, and errors as people should see them."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from bgmatch_dask.errors import BgmatchError, ConfigError

__all__ = (
    "DAMAGED",
    "FAILURE",
    "INTERRUPTED",
    "PARTIAL",
    "USAGE",
    "finish",
    "print_json",
    "reported",
)

FAILURE, USAGE, PARTIAL, DAMAGED, INTERRUPTED, ENDED = 1, 2, 3, 4, 130, 143
_MOMENT = 0.05


class _EndedError(KeyboardInterrupt):
    """The system asked the process to end; it stops as at Ctrl-C."""


class _InterruptedError(KeyboardInterrupt):
    """Ctrl-C.

    Once the built-in exception itself has passed through code that was compiled from text, such
    as the methods of a dataclass, Python ends by the signal whatever the exit code.
    """


@contextmanager
def reported() -> Iterator[None]:
    """Turn errors on purpose into one plain line and an exit code."""
    try:
        with _ends_like_ctrl_c(), _swallowed_signals_come_again():
            yield
    except BgmatchError as error:
        sys.stderr.write(f"bgmatch: {error}\n")
        raise typer.Exit(USAGE if isinstance(error, ConfigError) else FAILURE) from None
    except _EndedError:
        _ignore_further_signals()
        sys.stderr.write("bgmatch: ended; run the same command again to continue\n")
        raise typer.Exit(ENDED) from None
    except KeyboardInterrupt:
        _ignore_further_signals()
        sys.stderr.write("bgmatch: interrupted; run the same command again to continue\n")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _ends_like_ctrl_c() -> Iterator[None]:
    """Let a process that is asked to end write down what is done, as Ctrl-C does."""

    def end(number: int, _: object) -> None:
        raise _EndedError if number == signal.SIGTERM else _InterruptedError

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, end)}
    # What runs in the background of a script does not hear Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _swallowed_signals_come_again() -> Iterator[None]:
    """Send a signal once more whose exception Python could not raise.

    A signal may arrive inside a destructor or a callback of the garbage collector. Python prints
    what is raised there and goes on, so that Ctrl-C would be lost.
    """
    before = sys.unraisablehook
    main = threading.main_thread().ident or 0

    def again(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            before(what)
            return
        number = signal.SIGTERM if what.exc_type is _EndedError else signal.SIGINT
        # A moment later, so that the place that cannot raise has been left.
        threading.Timer(_MOMENT, signal.pthread_kill, (main, number)).start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _ignore_further_signals() -> None:
    """Let the process end with its own exit code.

    While the interpreter shuts down a signal with a handler has its default action again, so that
    one more Ctrl-C would kill the process instead of ending it with the code that tells why.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def finish(n_rejected: int) -> None:
    """End a command that is done: with 3 when inputs were rejected."""
    if n_rejected:
        raise typer.Exit(PARTIAL)


def print_json(value: Any) -> None:  # noqa: ANN401
    """Print facts for programs; numbers that are not finite become null."""
    print(json.dumps(_plain(value), indent=1, sort_keys=True, allow_nan=False))


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not (-float("inf") < value < float("inf")):
        return None
    return value
