"""The doctor finds ten planted faults, and what it advises mends each of them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest
from distributed import Client

from bgmatch_dask.config import load_config
from bgmatch_dask.service.board.plugin import install_board
from bgmatch_dask.service.doctor import examine
from tests.ports import reserved_ports
from tests.service.processes import bgmatch, cluster_of_processes, end, impatient, wait_until
from tests.service.test_tls import certificates
from tests.tiny_store import build_tiny_store


def wrong(*, store, **values) -> dict[str, str]:
    """Return what is wrong: the advice by code."""
    config = load_config(values={"store": {"url": str(store)}, **values})
    found = list(examine(config))
    assert {check.verdict for check in found} <= {"ok", "wrong"}
    assert all(check.fix and check.says for check in found if check.verdict == "wrong")
    return {check.code: check.fix for check in found if check.verdict == "wrong"}


def told_of_the_dashboard(cluster) -> str:
    config = load_config(values={"cluster": {"scheduler": cluster.address}})
    return next(check.says for check in examine(config) if check.name == "dashboard")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "tract.zarr"


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    with cluster_of_processes(tmp_path_factory.mktemp("doctor"), workers=0) as found:
        yield found


def replace_worker(cluster, *options, environment=None) -> None:
    """End all workers and start another one."""
    while cluster.workers:
        end(cluster.workers.pop())
    with Client(cluster.address, set_as_default=False) as client:
        wait_until(lambda: not client.nthreads(), "the end of the workers")
        cluster.add_worker(*options, environment=environment)
        client.wait_for_workers(1, timeout=120)


def test_nothing_is_wrong_and_nothing_is_left_behind(store):
    assert wrong(store=store) == {}
    assert not store.exists()


def test_a_cluster_without_workers_then_with_faulty_ones(scheduler, simulated, store, tmp_path):
    """Another version, a wrong clock, too little memory: each mended by another worker."""
    job = {
        "cluster": {"scheduler": scheduler.address},
        "inputs": {"paths": [str(simulated / "warps")]},
    }
    metadata = tmp_path / "bgmatch_dask-0.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: bgmatch_dask\nVersion: 0.0.1\n")
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nright = time.time\ntime.time = lambda: right() + 60\n"
    )
    found = wrong(store=store, **job)
    assert list(found) == ["no-workers"]
    assert f"dask worker {scheduler.address} --nthreads 1" in found["no-workers"]
    faulty = {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    replace_worker(scheduler, "--memory-limit", "2MB", environment=faulty)
    found = wrong(store=store, **job)
    assert sorted(found) == ["clock-skew", "memory-short", "version-mismatch"]
    assert "NTP" in found["clock-skew"]
    assert "--memory-limit" in found["memory-short"]
    assert "requirements.lock" in found["version-mismatch"]
    replace_worker(scheduler, "--memory-limit", "4GB")
    assert wrong(store=store, **job) == {}
    board = r"http://\S+/status, board at (http://\S+/bgmatch/)"
    assert re.fullmatch(f"{board} from the first run on", told_of_the_dashboard(scheduler))
    with Client(scheduler.address, set_as_default=False) as client:
        install_board(client)
    link = re.fullmatch(board, told_of_the_dashboard(scheduler))
    with urlopen(link[1], timeout=60) as page:
        assert b"board.js" in page.read()


def test_a_place_without_the_right_to_write(store, tmp_path):
    store.mkdir()
    words = [sys.executable, "-m", "bgmatch_dask", "doctor", "--store", str(store)]
    if os.geteuid() == 0:
        mount = f"mount -t tmpfs -o ro none {store} && exec "
        if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
            pytest.skip("no private mounts here")
        words = ["unshare", "-m", "sh", "-c", mount + " ".join(words)]
    else:
        store.chmod(0o555)
    refused = subprocess.run(words, capture_output=True, text=True, check=False)
    store.chmod(0o755)
    assert refused.returncode == 1
    assert "wrong   store: " in refused.stdout
    assert "the rights" in refused.stdout
    mended = bgmatch("doctor", "--store", str(store), state=tmp_path)
    assert (mended.returncode, mended.stdout.splitlines()[-1]) == (0, "all is well")


def test_a_port_that_is_taken(store):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        found = wrong(store=store, cluster={"dashboard": address})
    assert list(found) == ["port-taken"]
    assert "127.0.0.1:0" in found["port-taken"]
    assert wrong(store=store, cluster={"dashboard": "127.0.0.1:0"}) == {}


def test_a_package_that_is_missing(store, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "dask_jobqueue", None)
        found = wrong(store=store, cluster={"kind": "slurm"})
    assert found == {"extra-missing": "pip install 'bgmatch_dask[slurm]'"}
    assert wrong(store=store, cluster={"kind": "slurm"}) == {}


def test_a_store_that_cannot_be_reached(tmp_path):
    (tmp_path / "file").touch()
    found = wrong(store=tmp_path / "file" / "tract.zarr")
    assert found == {"store-unreachable": "Check the path and its rights."}
    assert wrong(store=tmp_path / "folder" / "tract.zarr") == {}


def test_a_store_of_another_schema(tmp_path):
    location = build_tiny_store(tmp_path)
    group = location.open_group()
    kept = group.attrs["bgmatch_schema"]
    group.attrs["bgmatch_schema"] = 0
    found = wrong(store=location.url)
    assert list(found) == ["store-schema"]
    assert "make the store again" in found["store-schema"]
    shutil.rmtree(location.local_path)
    build_tiny_store(tmp_path)
    assert kept != 0
    assert wrong(store=location.url) == {}


def test_a_dead_scheduler(scheduler, store):
    with reserved_ports(1) as (port,), impatient():
        found = wrong(store=store, cluster={"scheduler": f"tcp://127.0.0.1:{port}"})
    assert list(found) == ["scheduler-unreachable"]
    assert "cluster.scheduler" in found["scheduler-unreachable"]
    assert "scheduler-unreachable" not in wrong(
        store=store, cluster={"scheduler": scheduler.address}
    )


def test_bad_certificates(store, tmp_path):
    right, other = certificates(tmp_path / "right"), certificates(tmp_path / "other")
    options = ["--tls-ca-file", right["tls_ca"], "--tls-cert", right["tls_cert"]]
    options += ["--tls-key", right["tls_key"]]
    with cluster_of_processes(tmp_path / "tls", 0, tls=options, protocol="tls") as cluster:
        missing = dict.fromkeys(right, str(tmp_path / "none.pem"))
        for files, code in ((missing, "tls-files"), (other, "scheduler-unreachable")):
            with impatient():
                found = wrong(store=store, cluster={"scheduler": cluster.address, **files})
            assert list(found) == [code]
            assert "tls_ca" in found[code]
        found = wrong(store=store, cluster={"scheduler": cluster.address})
        assert list(found) == ["tls-missing"]
        found = wrong(store=store, cluster={"scheduler": cluster.address, **right})
        assert list(found) == ["no-workers"]
