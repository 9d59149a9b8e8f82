"""What is compiled on a new machine before it is needed is what is needed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bgmatch_dask.numerics.compiled import _loops, any_compiled
from bgmatch_dask.pipeline.first_use import compile_later_stages
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from tests.conftest import make_job

ALL = """
import multiprocessing
import bgmatch_dask.numerics.stacking
from bgmatch_dask.numerics.compiled import any_compiled
from bgmatch_dask.service.worker_template import compile_ahead

if __name__ == "__main__":
    assert not any_compiled()
    compile_ahead()
    for process in multiprocessing.active_children():
        process.join()
    assert any_compiled()
    compile_ahead()
    assert not multiprocessing.active_children()
"""


def compiled() -> set[tuple[str, object]]:
    return {(repr(loop), signature) for loop in _loops() for signature in loop.overloads}


def test_a_run_needs_what_was_compiled_for_it(simulated, tmp_path):
    run_tract(make_plan(make_job(simulated / "warps", tmp_path / "tract.zarr")))
    of_run = compiled()
    assert any_compiled()
    compile_later_stages()
    assert compiled() == of_run


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_a_new_machine_compiles_ahead_and_once(tmp_path):
    script = tmp_path / "ahead.py"
    script.write_text(ALL)
    # Without optimization it takes a third of the time.
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_OPT": "0"}
    subprocess.run([sys.executable, str(script)], check=True, env=environment)
    kept = {path.name.partition("-")[0] for path in tmp_path.rglob("*.nbi")}
    assert {"stacking._stack", "cell_maps.difference_cells"} <= kept
