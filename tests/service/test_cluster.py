"""Clusters by name: versions, extras, TLS files, scaling and the addresses that they listen on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import dask
import psutil
import pytest
from distributed import Client

from bgmatch_dask.config import ClusterConfig
from bgmatch_dask.errors import ClusterError
from bgmatch_dask.service.cluster import EXTRAS, connect, slurm_cluster
from bgmatch_dask.service.versions import find_mismatches
from tests.service.processes import cluster_of_processes, impatient, wait_until

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def listening(process: psutil.Process) -> set[str]:
    found = set()
    for one in (process, *process.children(recursive=True)):
        # Processes of other tests end at any moment.
        with suppress(psutil.NoSuchProcess):
            found |= {c.laddr.ip for c in one.net_connections() if c.status == psutil.CONN_LISTEN}
    return found


def test_a_local_cluster_listens_on_loopback_only(cluster):
    assert cluster.dashboard_link.startswith("http://127.0.0.1:")
    assert listening(psutil.Process())
    assert listening(psutil.Process()) <= LOOPBACK


def test_versions_of_a_local_cluster_agree(cluster):
    assert find_mismatches(cluster) == ()


def _samples_each(dask_worker):
    return dask_worker.periodic_callbacks["profile"].callback_time


def test_the_profiler_of_a_worker_does_not_look_all_the_time(cluster):
    assert set(cluster.run(_samples_each).values()) == {100}


_LOOK = """
import os, signal, sys
from bgmatch_dask.service.worker_template import start_template

def look():
    deaf = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ready = "bgmatch_dask.pipeline.coadd_unit" in sys.modules
    return ready, deaf, os.environ["OMP_NUM_THREADS"], os.environ["LATE"], os.getpid()

if __name__ == "__main__":
    assert start_template()
    os.environ["LATE"] = "too"
    from bgmatch_dask.config import ClusterConfig
    from bgmatch_dask.service.cluster import connect
    with connect(ClusterConfig(workers=1)) as client:
        *first, pid = client.submit(look).result()
        client.run_on_scheduler(os.kill, pid, signal.SIGKILL)
        *second, again = client.submit(look, pure=False).result()
        print(first == second == [True, True, "1", "too"], pid != again)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no worker is forked")
def test_workers_begin_with_what_they_need(tmp_path):
    script = tmp_path / "look.py"
    script.write_text(_LOOK)
    done = subprocess.run(
        [sys.executable, "-W", "error", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True True\n", "", 0)


def test_a_worker_with_another_version_is_refused_with_a_table(tmp_path):
    metadata = tmp_path / "other" / "bgmatch_dask-0.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: bgmatch_dask\nVersion: 0.0.1\n")
    with cluster_of_processes(tmp_path / "cluster", workers=0) as processes:
        processes.add_worker(
            environment={"PYTHONPATH": str(tmp_path / "other"), "PYTHONSAFEPATH": "1"}
        )
        config = ClusterConfig(scheduler=processes.address)
        assert config.kind == "address"
        with pytest.raises(ClusterError) as refused, connect(config):
            pass
    assert refused.value.code == "version-mismatch"
    table = refused.value.what.splitlines()
    assert table[1].split() == ["package", "client", "scheduler", "workers"]
    assert table[2].split()[0] == "bgmatch_dask"
    assert "0.0.1 (tcp://127.0.0.1:" in table[2]
    assert len(table) == 3


@pytest.mark.parametrize("kind", EXTRAS)
def test_a_missing_extra_is_named(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, EXTRAS[kind], None)
    with pytest.raises(ClusterError) as missing, connect(ClusterConfig(kind=kind)):
        pass
    assert missing.value.code == "extra-missing"
    assert missing.value.fix == f"pip install 'bgmatch_dask[{kind}]'"


def test_a_slurm_job_starts_single_threaded_workers():
    pytest.importorskip("dask_jobqueue")
    with slurm_cluster(ClusterConfig(kind="slurm", memory_limit="4GB", options=OFFLINE)) as cluster:
        script = cluster.job_script()
    assert "#SBATCH --mem=4G" in script
    assert "#SBATCH -t 02:00:00" in script
    assert "export NUMBA_NUM_THREADS=1" in script
    assert "--nthreads 1" in script


def runner_of_jobs(cancelled=0):
    """Return the library's cluster class whose jobs are scripts that run on this machine.

    The first ones are cancelled while they wait: what is submitted never starts.
    """
    local = pytest.importorskip("dask_jobqueue.local")
    started = {}
    waiting = iter(range(cancelled))

    class Job(local.LocalJob):
        async def _submit_job(self, script_filename):
            if (number := next(waiting, None)) is not None:
                return f"9999999{number}"  # larger than any process's
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            # The file is gone as soon as this returns.
            words = ["bash", "-c", Path(script_filename).read_text()]
            job = subprocess.Popen(words, start_new_session=True, **quiet)
            started[str(job.pid)] = job
            return str(job.pid)

        @classmethod
        async def _close_job(cls, job_id, cancel_command):
            job = started.pop(job_id, None)
            if job is None:
                return
            with suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            job.wait()

    class Cluster(local.LocalCluster):
        job_cls = Job

    return Cluster


@contextmanager
def batch_cluster(monkeypatch, cancelled=0):
    runner = SimpleNamespace(SLURMCluster=runner_of_jobs(cancelled))
    monkeypatch.setattr("bgmatch_dask.service.cluster.load_extra", lambda kind: runner)
    monkeypatch.setattr("bgmatch_dask.service.cluster._REPLACE_SECONDS", 0.2)
    quick = {"distributed.deploy.lost-worker-timeout": "100ms"}
    options = {"scheduler_options": OFFLINE["scheduler_options"]}
    config = ClusterConfig(kind="slurm", workers=1, memory_limit="1GB", options=options)
    with dask.config.set(quick), connect(config) as client:
        yield client


def test_a_batch_job_that_was_ended_is_asked_for_again(monkeypatch):
    with batch_cluster(monkeypatch) as client:
        wait_until(lambda: len(client.nthreads()) == 1, "a worker")
        client.submit(_pause, 0).result()
        first = client.run(os.getpid)
        os.kill(next(iter(first.values())), signal.SIGKILL)
        wait_until(lambda: client.nthreads().keys() - first.keys(), "another worker")


def test_a_batch_job_that_was_cancelled_while_it_waited_is_asked_for_again(tmp_path, monkeypatch):
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\nexec ls /proc\n")  # jobs here are processes
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("bgmatch_dask.service.batch_queue._LOOK_SECONDS", 0.1)
    with batch_cluster(monkeypatch, cancelled=2) as client:
        assert len(client.nthreads()) == 1


OFFLINE = {
    "walltime": "02:00:00",
    "scheduler_options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
}


def test_a_slurm_cluster_without_memory_is_refused_in_one_sentence():
    pytest.importorskip("dask_jobqueue")
    with pytest.raises(ClusterError) as refused:
        slurm_cluster(ClusterConfig(kind="slurm"))
    assert refused.value.code == "cluster-refused"
    assert "memory" in refused.value.what


def test_missing_tls_files_are_named(tmp_path):
    missing = str(tmp_path / "ca.pem")
    files = {"tls_ca": missing, "tls_cert": missing, "tls_key": missing}
    config = ClusterConfig(scheduler="tls://127.0.0.1:1", **files)
    with pytest.raises(ClusterError) as refused, connect(config):
        pass
    assert (refused.value.code, refused.value.where) == ("tls-files", missing)


def test_a_local_cluster_scales_between_its_bounds():
    with connect(ClusterConfig(workers=1, max_workers=2)) as client:
        assert len(client.nthreads()) == 1
        # More than is done while a worker starts on any machine.
        futures = client.map(_pause, range(2000), pure=False)
        wait_until(lambda: len(client.nthreads()) == 2, "a second worker")
        client.cancel(futures)


def _pause(_: int) -> None:
    import time

    time.sleep(0.3)


def test_an_address_without_a_scheduler_says_so():
    nobody = ClusterConfig(scheduler="127.0.0.1:1")
    with impatient(), pytest.raises(ClusterError) as dead, connect(nobody):
        pass
    assert dead.value.code == "scheduler-unreachable"
    with pytest.raises(ClusterError) as unnamed, connect(ClusterConfig(kind="address")):
        pass
    assert unnamed.value.code == "scheduler-unnamed"


def test_two_clients_share_a_scheduler_without_sharing_results(cluster):
    from bgmatch_dask.pipeline.engine import DaskEngine

    with Client(cluster.scheduler.address, set_as_default=False) as other:
        first = DaskEngine(cluster).map(_double, [1, 2], "stage")
        second = DaskEngine(other).map(_double, [10, 20], "stage")
        assert sorted(first) == [2, 4]
        assert sorted(second) == [20, 40]


def _double(value: int) -> int:
    return 2 * value
