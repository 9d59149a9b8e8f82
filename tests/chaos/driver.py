"""A driver in a process of its own: runs the job and tells of every event through a pipe."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection

from bgmatch_dask.config import load_config
from bgmatch_dask.pipeline.events import Event, StageStarted, UnitDone
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract


def drive(config: str, told: Connection) -> None:
    """Run a job, and take a moment after each unit, so that this process can be killed between."""

    def tell(event: Event) -> None:
        if isinstance(event, StageStarted):
            told.send(("stage", event.stage))
        if isinstance(event, UnitDone):
            told.send(("done", event.stage, event.unit))
            time.sleep(0.03)

    run_tract(make_plan(load_config(config)), None, (tell,))
    told.send(("finished",))
