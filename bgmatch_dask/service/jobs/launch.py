"""Starts drivers: here as a detached process, or beside a scheduler, in its place."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distributed import Client

from bgmatch_dask.config import ClusterConfig
from bgmatch_dask.errors import ClusterError
from bgmatch_dask.service.cluster import connect_client, made_for_job
from bgmatch_dask.service.jobs.driver import Orders
from bgmatch_dask.service.jobs.record import JobRecord
from bgmatch_dask.service.versions import address_of, check_versions

__all__ = ("launch",)


def launch(record: JobRecord, cluster: ClusterConfig) -> None:
    """Start the driver of a job where it outlives this process.

    With the kinds ``local`` and ``slurm`` that is a detached process of this machine, which owns
    the cluster; with the others a process beside the scheduler, started by the scheduler.

    Raises
    ------
    ClusterError
        ``driver-refused`` or ``driver-died``, or that the cluster cannot be reached.
    """
    if cluster.kind in {"local", "slurm"}:
        orders = Orders(record.to_json(), cluster.model_dump(mode="json"))
        _check(start_process(asdict(orders)), cluster.kind)
    elif cluster.kind == "address":
        with connect_client(cluster) as client:
            check_versions(client)
            _beside_scheduler(client, record, cluster, end_cluster=False)
    else:
        with made_for_job(cluster) as client:
            _beside_scheduler(client, record, cluster, end_cluster=True)


def start_process(orders: Mapping[str, Any]) -> dict[str, Any]:
    """Start a driver as a process that has its own session, and return what it answers.

    The process belongs to nobody's terminal, and lives on when this one is killed.
    """
    folder = Path(tempfile.mkdtemp(prefix="bgmatch-driver-"))
    with (folder / "stderr.txt").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "bgmatch_dask.service.jobs.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            start_new_session=True,
        )
    with process.stdin as stream:  # type: ignore[union-attr]
        stream.write(json.dumps(orders).encode())
    with process.stdout as stream:  # type: ignore[union-attr]
        line = stream.readline()
    # Without someone who waits for it, a driver that ended would stay as a zombie.
    threading.Thread(target=process.wait, daemon=True).start()
    if line:
        answer: dict[str, Any] = json.loads(line)
        return answer
    said = (folder / "stderr.txt").read_text(errors="replace").strip().splitlines()
    return {"died": said[-1] if said else "it said nothing"}


async def _start_beside(orders: Mapping[str, Any], dask_scheduler: Any = None) -> dict[str, Any]:  # noqa: ANN401
    """Start a driver in the scheduler's place; runs inside the scheduler's process."""
    address = str(dask_scheduler.address)
    files = dask_scheduler.security.get_tls_config_for_role("scheduler")
    tls = {
        "tls_ca": files.get("ca_file"),
        "tls_cert": files.get("cert"),
        "tls_key": files.get("key"),
    }
    cluster = {**orders["cluster"], "kind": "address", "scheduler": address, "options": {}}
    cluster |= tls if address.startswith("tls") else dict.fromkeys(tls)
    return await asyncio.to_thread(start_process, {**orders, "cluster": cluster})


def _beside_scheduler(
    client: Client, record: JobRecord, cluster: ClusterConfig, *, end_cluster: bool
) -> None:
    orders = Orders(record.to_json(), cluster.model_dump(mode="json"), end_cluster)
    try:
        answer: Any = client.run_on_scheduler(_start_beside, asdict(orders))
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            "scheduler-without-bgmatch",
            f"The scheduler cannot load bgmatch_dask: {error}",
            where=address_of(client),
            fix="Install the same requirements.lock on the scheduler, or use one image.",
        ) from error
    _check(answer, address_of(client))


def _check(answer: Mapping[str, Any], where: str) -> None:
    if "refused" in answer:
        fault = answer["refused"]
        raise ClusterError(fault["code"], fault["what"], where=fault["where"], fix=fault["fix"])
    if "started" not in answer:
        raise ClusterError(
            "driver-died",
            f"The driver ended before it began: {answer.get('died')}",
            where=where,
            fix="Run `bgmatch doctor` with the job file.",
        )
