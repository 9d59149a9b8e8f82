"""Processes that need one kernel at the same time, and caches that cannot be locked."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import subprocess
import sys

import pytest

from bgmatch_dask.numerics import kernel_cache

KERNEL = """
from bgmatch_dask.numerics.compiling import kernel

@kernel()
def total(values):
    out = 0.0
    for value in values:
        out += value
    return out
"""
CALL = """
import numpy as np
from own_kernel import total
print("ready", flush=True)
input()
assert total(np.ones(3)) == 3.0
print(sum(total.stats.cache_misses.values()), sum(total.stats.cache_hits.values()))
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own_kernel.py").write_text(KERNEL)
    return tmp_path


@pytest.fixture
def total(folder, monkeypatch):
    """A kernel of this process, whose cache is in a folder of its own."""
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(folder / "cache"))
    spec = importlib.util.spec_from_file_location("own_kernel", folder / "own_kernel.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.total


def test_one_of_two_processes_compiles(folder):
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-c", CALL]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(command, env=environment, **pipes) as one,
        subprocess.Popen(command, env=environment, **pipes) as other,
    ):
        assert {process.stdout.readline() for process in (one, other)} == {"ready\n"}
        for process in (one, other):
            process.stdin.write("\n")
            process.stdin.flush()
        done = sorted(process.communicate()[0].split() for process in (one, other))
    assert done == [["0", "1"], ["1", "0"]]


def test_a_lock_that_is_never_released_only_delays(total, monkeypatch):
    monkeypatch.setattr(kernel_cache, "_PATIENCE", 0.05)
    lock = total._cache.lock_file
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert total((1.0, 2.0)) == 3.0
    assert sum(total.stats.cache_misses.values()) == 1


def test_a_kernel_is_compiled_where_nothing_can_be_locked(total):
    total._cache.lock_file.mkdir(parents=True)
    assert total((1.0, 2.0)) == 3.0


def test_the_lock_is_free_afterwards(total):
    assert total((1.0, 2.0)) == 3.0
    with total._cache.lock_file.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
