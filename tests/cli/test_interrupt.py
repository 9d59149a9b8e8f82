"""Ctrl-C during a run: a plain sentence, exit code 130, and the next run continues."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from bgmatch_dask.store import Location


def start(simulated, store):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "bgmatch_dask", "run", str(simulated / "warps")),
            *("--store", str(store), "--workers", "1", "--set", "background.bin_size=64"),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_ctrl_c_is_safe_and_the_same_command_continues(simulated, tmp_path):
    store = tmp_path / "tract.zarr"
    process = start(simulated, store)
    for line in process.stderr:
        if line.startswith("ingest:"):
            break
    # A terminal sends the signal to every process of the group, workers included.
    os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=200)
    assert process.returncode == 130, rest
    # Python's own helpers may still speak while the process ends.
    assert "bgmatch: interrupted; run the same command again to continue" in rest.splitlines()
    assert "Traceback" not in rest
    location = Location.of(str(store))
    assert not location.exists("runs/main/commit.json")
    again = start(simulated, store)
    out, rest = again.communicate(timeout=200)
    assert again.returncode == 0, rest
    assert "5 of 5 matched" in out
    assert location.exists("runs/main/commit.json")
