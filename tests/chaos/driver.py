"""A driver in a process of its own: runs the job, tells of every event, and dies when told to."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection

from bgmatch_dask.config import load_config
from bgmatch_dask.pipeline.events import Event, StageStarted, UnitDone
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract


def drive(config: str, told: Connection, events: int, delay: float) -> None:
    """Run a job, and take a moment after each unit, so that this process can be killed between.

    It is killed from inside, because whoever kills it from outside may be late.

    Parameters
    ----------
    config
        Path of the configuration.
    told
        Where every event is told.
    events
        After how many of them the process is killed; 0 lets it finish.
    delay
        How long after that [s].
    """
    numbers = iter(range(events - 1, -1, -1))

    def tell(event: Event) -> None:
        if not isinstance(event, StageStarted | UnitDone):
            return
        if isinstance(event, StageStarted):
            told.send(("stage", event.stage))
        else:
            told.send(("done", event.stage, event.unit))
        if next(numbers, None) == 0:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        if isinstance(event, UnitDone):
            time.sleep(0.05)

    run_tract(make_plan(load_config(config)), None, (tell,))
    told.send(("finished",))


def interrupt_often(config: str, told: Connection, times: int, longest: float) -> None:
    """Begin a job again and again in one process, with Ctrl-C at random moments; tell the ends."""
    # Modules of others that are interrupted while they load are broken for good.
    run_tract(make_plan(load_config(config, [f"store.url={config}.zarr"])))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Processes that come from where workers come from are deaf to it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    moments = random.Random(2026)
    ends = Counter(_interrupted(config, moments.uniform(0, longest)) for _ in range(times))
    told.send(("ends", ends))


def _interrupted(config: str, delay: float) -> str:
    over, main = threading.Event(), threading.get_ident()

    def interrupt() -> None:
        if not over.wait(delay):
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        try:
            run_tract(make_plan(load_config(config)))
        finally:
            over.set()
            thread.join()
    except BaseException as error:  # noqa: BLE001
        return repr(error)
    return "finished"
