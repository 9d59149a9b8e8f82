"""The core of the suite on an S3 server process: same bytes, found damage, one driver, no loss."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from bgmatch_dask import open_tract
from bgmatch_dask.errors import StoreError
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.pipeline.verify import verify_store
from bgmatch_dask.store import Location
from bgmatch_dask.store.lock import hold_store
from bgmatch_dask.store.versions import current_version, list_versions
from tests.chaos.test_storage_faults import FAULTS, KINDS, damage, mend
from tests.chaos.test_versions import changed, killed
from tests.chaos.tract import tiny_job


@pytest.fixture(scope="module")
def remote(s3_server, warps):
    """A finished run on the server; what a test damages, it repairs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        url = f"{s3_server.make_bucket()}/tract.zarr"
        run_tract(make_plan(tiny_job(warps, url)))
    return url


def test_an_undisturbed_run_has_the_bytes_of_a_local_one(remote, s3, as_calm):
    place = Location.of(remote)
    as_calm(place)
    assert verify_store(place).damages == ()


def test_damaged_objects_are_found_and_restored(remote, s3, as_calm):
    place = Location.of(remote)
    kinds = {"chunk": "flip", "sums": "truncate", "difference": "delete", "coadd": "flip"}
    for kind, fault in kinds.items():
        damage(place, KINDS[kind], fault)
    found = verify_store(place)
    wrong = {d.name: d.code for d in found.damages if d.code.startswith("object-")}
    assert wrong == {KINDS[kind]: FAULTS[fault] for kind, fault in kinds.items()}
    assert mend(place).damages == ()
    as_calm(place)


def test_a_second_driver_is_refused(remote, s3, warps):
    with hold_store(Location.of(remote), "main"), pytest.raises(StoreError) as caught:
        run_tract(make_plan(tiny_job(warps, remote)))
    assert caught.value.code == "lock-held"


RUN_UNTIL_KILLED = """
import sys, time
from bgmatch_dask.cli.main import app
from bgmatch_dask.pipeline import stages

def wait(*_):
    time.sleep(600)

# After the differences; without it a test that looks too late would find the run finished.
stages.match = wait
app(sys.argv[1:])
"""


def test_a_killed_driver_loses_nothing(s3, warps, as_calm):
    url = f"{s3.make_bucket()}/tract.zarr"
    config = tiny_job(warps, url)
    place = Location.of(url)
    driver = subprocess.Popen(
        [
            *(sys.executable, "-c", RUN_UNTIL_KILLED, "run", str(warps), "--store", url),
            *("--workers", "2", "--quiet", "--set", "background.bin_size=32"),
            *("--set", "match.write_warps=true"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while driver.poll() is None and not list(place.list("match/main/differences")):
            time.sleep(0.1)
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    assert driver.returncode == -signal.SIGKILL
    assert not place.exists("runs/main/commit.json")
    run_tract(make_plan(config))
    as_calm(place)
    assert verify_store(place).damages == ()


def test_a_new_version_comes_into_force_by_one_put(remote, s3):
    place = Location.of(remote)

    def coadd():
        with open_tract(place.url) as dataset:
            # Workers of another test's cluster do not have the keys.
            return dataset["coadd"].compute(scheduler="synchronous").values.tobytes()

    before = coadd()
    new = changed(place, match={"order": 1})
    killed(new, "point_to")
    assert coadd() == before
    run_tract(make_plan(new))
    assert current_version(place, "main") == "main@2"
    assert coadd() != before
    # The settings of before find their version finished; the other one is taken out again.
    run_tract(make_plan(changed(place, match={"order": "surface"}, store={"keep_versions": 0})))
    assert coadd() == before
    assert [v.name for v in list_versions(place, "main")] == ["main"]
    assert verify_store(place).damages == ()
