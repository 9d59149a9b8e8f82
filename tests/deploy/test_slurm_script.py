"""The script for sites without dask-jobqueue, with an `srun` that starts two tasks here."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import make_job
from tests.deploy.recipes import DEPLOY, environment

SRUN = """#!/usr/bin/env bash
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT TERM
for _ in 1 2; do "$@" & done
wait
"""


@pytest.mark.slow
def test_the_batch_script_carries_out_a_tract(small_tract, tmp_path):
    import yaml

    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text(SRUN)
    (tools / "srun").chmod(0o755)
    config = make_job(small_tract / "warps", tmp_path / "t.zarr").model_dump(mode="json")
    del config["cluster"]
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    variables = environment(
        BGMATCH_HOST="127.0.0.1", TMPDIR=str(tmp_path), BGMATCH_MEMORY="2GB", SLURM_JOB_ID="7"
    )
    variables["PATH"] = f"{tools}:{variables['PATH']}"
    done = subprocess.run(
        ["bash", str(DEPLOY / "slurm/run_tract.sbatch"), "job.yaml"],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "t.zarr/runs/main/commit.json").exists()
    assert not list(tmp_path.glob(".bgmatch-7-*"))
