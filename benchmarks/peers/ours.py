"""Our own job on the same tract, ingest of the patch files included."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.job import JobMeasure, cluster, job_config, run_job, warm_up
from benchmarks.peers.scene import STRIDE, Scene, save_corrections
from bgmatch_dask.background.offsets import render
from bgmatch_dask.geometry import Box
from bgmatch_dask.pipeline.results import load_offset
from bgmatch_dask.store import open_store

__all__ = ("run_ours",)


def run_ours(tract: Path, scene: Scene, work: Path, out: Path, repeats: int) -> list[JobMeasure]:
    """Run the job on two workers that are up, write its corrections, and return each job."""
    jobs = []
    with cluster(2) as client:
        warm_up(client, work)
        for index in range(repeats):
            store = work / f"peers-{index}.zarr"
            shutil.rmtree(store, ignore_errors=True)
            jobs.append(run_job(client, job_config(tract, store)))
    save_corrections(str(out), _corrections(scene, jobs[-1]))
    return jobs


def _corrections(scene: Scene, job: JobMeasure) -> dict[str, NDArray[np.float32]]:
    store = open_store(job.location.url)
    height, width = scene.shape
    box = Box(0, 0, width, height)
    found = {}
    for row in job.summary["visits"]:
        label = str(row["visit"])
        if row["status"] == "reference":
            found[label] = np.zeros((1, 1), np.float32)
        elif row["status"] == "matched":
            offset = load_offset(store, job.summary["product"], label)
            found[label] = render(offset, box)[::STRIDE, ::STRIDE]
    return found
