"""A new run over committed products: the earlier ones stay until one small put says otherwise."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import dask
import numpy as np
import pytest
from typer.testing import CliRunner

from bgmatch_dask import open_offsets, open_tract
from bgmatch_dask.cli.main import app
from bgmatch_dask.errors import StoreError
from bgmatch_dask.pipeline.events import UnitDone
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.resume import stored_config
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.pipeline.verify import verify_store
from bgmatch_dask.store.versions import current_version, list_versions
from tests.chaos.test_storage_faults import damage, mend

RUN_AND_DIE = """
import os, signal, sys
from bgmatch_dask.config import RunConfig
from bgmatch_dask.pipeline import stages, versions
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr({"coadd": stages}.get(sys.argv[1], versions), sys.argv[1], die)
run_tract(make_plan(RunConfig.model_validate_json(sys.stdin.read())))
"""


def killed(job, moment):
    """Carry out a job in a process that is killed just before it calls a function."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_DIE, moment],
        input=job.model_dump_json(),
        text=True,
        capture_output=True,
        env=os.environ,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def changed(place, **sections):
    """Return the job of a store with other values of some sections."""
    job = stored_config(place, "main")
    return job.model_copy(
        update={n: getattr(job, n).model_copy(update=values) for n, values in sections.items()}
    )


def seen(place, run="main"):
    """Return every array that readers see of a run, and its offsets."""
    with dask.config.set(scheduler="synchronous"), open_tract(place.url, run) as dataset:
        arrays = {name: np.asarray(dataset[name]).tobytes() for name in dataset.variables}
    offsets = open_offsets(place.url, run)
    return arrays | {f"offset of {v}": offsets[v].nodes.tobytes() for v in offsets}


@pytest.mark.parametrize("moment", ["coadd", "point_to"])
def test_before_the_pointer_moved_the_earlier_version_is_read_bit_for_bit(copy, moment):
    copy.write_bytes("runs/main/report.html", b"as it was")
    before = seen(copy)
    # Other superpixels change what lies in the store of every visit, not only the products.
    new = changed(copy, background={"bin_size": 24})
    killed(new, moment)
    assert current_version(copy, "main") == "main"
    assert seen(copy) == before
    assert copy.read_bytes("runs/main/report.html") == b"as it was"
    units = []
    run_tract(make_plan(new), None, (units.append,))
    done = {event.stage for event in units if isinstance(event, UnitDone)}
    assert done == ({"coadd"} if moment == "coadd" else set())
    assert current_version(copy, "main") == "main@2"
    assert seen(copy) != before
    assert seen(copy, "main@2") == seen(copy)
    assert seen(copy, "main@1") == before
    assert verify_store(copy).damages == ()


def test_after_the_pointer_moved_the_new_version_is_read(copy):
    before = seen(copy)
    new = changed(copy, match={"order": 1})
    killed(new, "prune_versions")
    after = seen(copy)
    assert after != before
    assert seen(copy, "main@2") == after
    # The same settings again find their version finished, and nothing is done.
    units = []
    run_tract(make_plan(new), None, (units.append,))
    assert not [event for event in units if isinstance(event, UnitDone)]
    assert seen(copy) == after
    # So do the settings of before: the pointer goes back.
    run_tract(make_plan(changed(copy, match={"order": "surface"})), None, (units.append,))
    assert not [event for event in units if isinstance(event, UnitDone)]
    assert current_version(copy, "main") == "main"
    assert seen(copy) == before


def test_what_changed_is_told_and_only_so_many_versions_are_kept(copy):
    notes = []
    first = seen(copy)
    for order in (1, 2):
        run_tract(make_plan(changed(copy, match={"order": order})), None, (notes.append,))
    told = " ".join(event.text for event in notes if hasattr(event, "text"))
    assert "main@3 is made beside main@2" in told
    assert "coadd: stored warps or offsets changed: 2 units" in told
    found = list_versions(copy, "main")
    assert [(v.name, v.current) for v in found] == [("main@2", False), ("main@3", True)]
    assert not list(copy.list("coadd/main_matched"))
    # Differences belong to the work of the run, and later versions need them.
    assert list(copy.list("match/main/differences"))
    assert verify_store(copy).damages == ()
    run_tract(
        make_plan(changed(copy, match={"order": "surface"}, store={"keep_versions": 0})),
    )
    assert [v.name for v in list_versions(copy, "main")] == ["main@4"]
    assert seen(copy) == first
    assert verify_store(copy).damages == ()


@pytest.fixture
def two(copy):
    """A store with two versions, the second in force."""
    run_tract(make_plan(changed(copy, match={"order": 1})))
    return copy


@pytest.mark.parametrize(
    ("fault", "code"), [("flip", "commit-corrupt"), ("delete", "pointer-missing")]
)
def test_a_damaged_pointer_is_found_and_set_again(two, fault, code):
    after = seen(two)
    damage(two, "runs/main/current.json", fault)
    found = verify_store(two).damages
    assert [(d.code, d.name) for d in found] == [(code, "runs/main/current.json")]
    if fault == "flip":
        with pytest.raises(StoreError) as caught:
            open_tract(two.url)
        assert caught.value.code == code
    assert mend(two).damages == ()
    assert seen(two) == after


def test_repair_makes_the_version_in_force_and_lets_a_damaged_earlier_one_go(two):
    after = seen(two)
    for version in ("main", "main@2"):
        damage(two, f"coadd/{version}_matched/image/c/0/0/0", "flip")
    assert {d.run for d in verify_store(two).damages} == {"main", "main@2"}
    assert mend(two).damages == ()
    assert seen(two) == after
    assert [v.name for v in list_versions(two, "main")] == ["main@2"]


def test_the_command_lists_and_removes_versions(two):
    run = CliRunner().invoke
    listed = json.loads(run(app, ["versions", two.url, "--json"]).stdout)
    assert [(v["number"], v["committed"], v["current"]) for v in listed] == [
        (1, True, False),
        (2, True, True),
    ]
    refused = run(app, ["versions", two.url, "--remove", "2"])
    assert refused.exit_code != 0
    assert "version-unknown" in refused.output
    after = seen(two)
    shown = run(app, ["versions", two.url, "--remove", "1"])
    assert shown.exit_code == 0
    assert "in force" in shown.stdout
    assert "kept" not in shown.stdout
    assert seen(two) == after
    assert verify_store(two).damages == ()
    assert json.loads(run(app, ["info", two.url, "--json"]).stdout)["version"] == "main@2"
