"""A cluster with certificates: without them nobody gets in, with them a submitted tract runs."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from bgmatch_dask.config import ClusterConfig
from bgmatch_dask.errors import ClusterError
from bgmatch_dask.service.cluster import connect
from tests.service.processes import bgmatch, cluster_of_processes, impatient

pytest.importorskip("cryptography")
SCRIPT = Path(__file__).parents[2] / "deploy/tls/make_certificates.py"


def certificates(folder: Path) -> dict[str, str]:
    subprocess.run([sys.executable, SCRIPT, folder], check=True)
    return {f"tls_{name}": str(folder / f"{name}.pem") for name in ("ca", "cert", "key")}


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """The TLS files, and a cluster of processes that uses them."""
    folder = tmp_path_factory.mktemp("tls")
    files = certificates(folder)
    options = ["--tls-ca-file", files["tls_ca"], "--tls-cert", files["tls_cert"]]
    options += ["--tls-key", files["tls_key"]]
    with cluster_of_processes(folder / "cluster", tls=options, protocol="tls") as cluster:
        yield files, cluster


def test_the_key_is_for_its_owner_only(tls):
    assert stat.S_IMODE(Path(tls[0]["tls_key"]).stat().st_mode) == 0o600


def test_a_client_without_certificates_or_with_others_is_refused(tls, tmp_path):
    address = tls[1].address
    assert address.startswith("tls://127.0.0.1:")
    for config in (
        ClusterConfig(scheduler=address.replace("tls://", "tcp://")),
        ClusterConfig(scheduler=address),
        ClusterConfig(scheduler=address, **certificates(tmp_path)),
    ):
        with impatient(), pytest.raises(ClusterError) as refused, connect(config):
            pass
        assert refused.value.code in {"scheduler-unreachable", "tls-missing"}
        assert "cluster.tls_ca" in refused.value.fix


def test_all_processes_listen_on_loopback_only(tls):
    with connect(ClusterConfig(scheduler=tls[1].address, **tls[0])):
        for process in (tls[1].scheduler, *tls[1].workers):
            sockets = psutil.Process(process.pid).net_connections()
            places = {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN}
            assert places == {"127.0.0.1"}


def test_a_submitted_tract_runs_with_certificates(tls, simulated, tmp_path):
    job = {
        "inputs": {"paths": [str(simulated / "warps")]},
        "store": {"url": str(tmp_path / "tract.zarr")},
        "background": {"bin_size": 64},
        "cluster": {"scheduler": tls[1].address, **tls[0]},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    submitted = bgmatch("submit", str(path), state=tmp_path)
    assert submitted.returncode == 0, submitted.stderr
    watched = bgmatch("watch", state=tmp_path)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert (tmp_path / "tract.zarr/runs/main/commit.json").exists()
