"""The process that the workers of this machine are forked from.

It has imported what workers need and loaded their compiled loops. Otherwise each worker would do
that for itself while the first units wait for it: three seconds of a processor each.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from typing import Any

from bgmatch_dask.service.signals import deaf_to
from bgmatch_dask.service.thread_caps import THREAD_CAPS

__all__ = ("compile_ahead", "forked_workers", "start_template")

_FORKS = sys.platform.startswith("linux")
"""Libraries of other systems do not stand being forked."""
_LOADING = "bgmatch_dask.service.worker_loading"


def start_template() -> bool:
    """Start the process, unless it is there. It ends with this one.

    What this process imports meanwhile takes about as long as the other needs to get ready.

    Returns
    -------
    bool
        Whether workers can be forked from it.
    """
    if not _FORKS or _of_someone_else():
        return False
    forkserver.set_forkserver_preload([_LOADING])
    before = _process()
    with deaf_to(signal.SIGINT), _environment(THREAD_CAPS):
        forkserver.ensure_running()
    if _process() != before:
        atexit.register(_end, os.getpid(), _process())
    return True


def _process() -> int | None:
    return getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)


def _end(owner: int, process: int | None) -> None:
    """End it at once: it would load to the end before it sees that nobody needs it any more."""
    if process is not None and os.getpid() == owner:
        with suppress(OSError):
            os.kill(process, signal.SIGTERM)


def _of_someone_else() -> bool:
    """Whether this process has such a process already: without what workers need, and not deaf."""
    server = getattr(forkserver, "_forkserver", None)
    return _process() is not None and _LOADING not in getattr(server, "_preload_modules", ())


def forked_workers() -> dict[str, Any]:
    """Return the settings of Dask by which a nanny forks its worker from the process.

    A worker that is lost comes back in a moment. Where nothing can be forked, there are none, and
    each worker loads for itself.
    """
    if not start_template():
        return {}
    from distributed import utils

    # Dask's own list of modules, for which it would import some here that nobody needs.
    utils._forkserver_preload_set = True  # noqa: SLF001
    return {"distributed.worker.multiprocessing-method": "forkserver"}


def compile_ahead() -> None:
    """Compile what later stages need on a new machine, in one more process beside the workers.

    Workers wait for what is being compiled, and load it. The process ends with this one.
    """
    from bgmatch_dask.numerics.compiled import any_compiled

    if not any_compiled() and start_template():
        from bgmatch_dask.pipeline.first_use import compile_later_stages

        context = multiprocessing.get_context("forkserver")
        context.Process(target=compile_later_stages, daemon=True).start()


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """Add variables to the environment for a moment; those that are set stay what they are."""
    added = {name: value for name, value in more.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
