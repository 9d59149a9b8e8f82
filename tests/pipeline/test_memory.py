"""Workers keep memory from unit to unit, and the arrays of the next stage lie in it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
from pathlib import Path
from bgmatch_dask.pipeline.attempt import UnitWork
from bgmatch_dask.service.worker_setup import WorkerSetup
from bgmatch_dask.store import Receipt

WorkerSetup().setup(None)

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

def receipt(task):
    return Receipt("stage", str(task), "", 0.0)

def first(task):
    # The last, small one lies above the others and keeps the heap from shrinking by itself.
    planes = [np.ones(2**20) for _ in range(40)] + [np.ones(2**10)]
    kept.append(planes[-1])
    return receipt(task)

def second(task):
    planes = [np.ones(2**21) for _ in range(20)]
    kept.append(planes[-1][:1].copy())
    return receipt(task)

kept = []
start = resident()
UnitWork(first)(0)
same = UnitWork(first)(1)
held = resident() - start
UnitWork(second)(2)
print(held, resident() - start)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of the C library of Linux")
def test_another_stage_works_in_the_memory_of_the_one_before():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True
    )
    held, after = map(float, done.stdout.split())
    assert held > 300  # for the next unit of the stage
    assert after < 1.1 * held
