"""Loaded by worker processes: units wait while there is a file ``closed`` with the cluster's."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from bgmatch_dask.pipeline.attempt import UnitWork

CLOSED = Path(os.environ["BGMATCH_STATE"]) / "closed"


def dask_setup(worker: object) -> None:
    """Let every unit pass the gate."""
    carry_out = UnitWork.__call__

    def wait_first(self: UnitWork, task: Any) -> Any:
        while CLOSED.exists():
            time.sleep(0.02)
        return carry_out(self, task)

    UnitWork.__call__ = wait_first
