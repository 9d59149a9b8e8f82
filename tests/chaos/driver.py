"""A driver in a process of its own: runs the job and tells of every event on a line."""

from __future__ import annotations

import sys
import time

from bgmatch_dask.config import load_config
from bgmatch_dask.pipeline.events import Event, StageStarted, UnitDone
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract


def tell(event: Event) -> None:
    """Print what happened, and take a moment, so that this process can be killed between units."""
    if isinstance(event, StageStarted):
        print(f"stage {event.stage}", flush=True)
    if isinstance(event, UnitDone):
        print(f"done {event.stage} {event.unit}", flush=True)
        time.sleep(0.03)


if __name__ == "__main__":
    run_tract(make_plan(load_config(sys.argv[1])), None, (tell,))
    print("finished", flush=True)
