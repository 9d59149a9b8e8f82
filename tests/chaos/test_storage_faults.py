"""Storage that fails or lies: every fault is found by its code, and what is damaged is restored."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from bgmatch_dask import open_tract
from bgmatch_dask.cli.main import app
from bgmatch_dask.errors import BgmatchError, StoreError
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.results import load_summary
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.pipeline.verify import repair_store, verify_store
from bgmatch_dask.store import Location, open_store
from bgmatch_dask.store.lock import hold_store
from tests.chaos.tract import tiny_job

KINDS = {
    "chunk": "direct/image/c/1/0/0/0",
    "shard index": "direct/variance/c/1/0/0/0",
    "mask": "direct/mask/c/2/1/0/0",
    "sums": "superpixels/direct/units/c/0/0/0/0/0",
    "root metadata": "zarr.json",
    "array metadata": "direct/image/zarr.json",
    "product metadata": "coadd/main_matched/image/zarr.json",
    "difference": "match/main/differences/00000.npz",
    "matched warp": "match/main/warps/image/c/0/0/0/0",
    "coadd": "coadd/main_matched/image/c/0/0/0",
    "recipe": "coadd/main_unmatched/00000.json",
    "summary": "runs/main/summary.json",
    "plan": "runs/main/plan.json",
    "visits": "visits.json",
}
RECEIPTS, COMMIT = "receipts/ingest/00000001.jsonl", "runs/main/commit.json"
FAULTS = {"flip": "object-changed", "truncate": "object-truncated", "delete": "object-missing"}


def damage(place, name, fault):
    data = place.read_bytes(name)
    at = len(data) - 3 if "variance" in name else len(data) // 2
    if fault == "delete":
        place.delete(name)
    elif fault == "truncate":
        place.write_bytes(name, data[: len(data) // 2])
    else:
        place.write_bytes(name, data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])


def mend(place):
    return repair_store(place, verify_store(place), lambda config: run_tract(make_plan(config)))


def test_a_sound_store_is_sound(copy):
    found = verify_store(copy)
    assert found.damages == ()
    assert found.objects > 50
    names = {
        name for prefix in ("direct", "superpixels", "match", "coadd") for name in copy.list(prefix)
    }
    # Nothing that a reader may touch is without a receipt.
    assert names <= found.expected.keys()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_of_every_kind_of_object_is_found(copy, kind, fault):
    damage(copy, KINDS[kind], fault)
    found = verify_store(copy)
    objects = [d for d in found.damages if d.code.startswith("object-")]
    assert [(d.name, d.code) for d in objects] == [(KINDS[kind], FAULTS[fault])]
    assert found.redo


@pytest.mark.parametrize("fault", ["flip", "truncate"])
@pytest.mark.parametrize(
    ("name", "code"), [(RECEIPTS, "receipts-corrupt"), (COMMIT, "commit-corrupt")]
)
def test_receipts_and_commits_that_changed_are_found(copy, name, code, fault):
    damage(copy, name, fault)
    assert code in {d.code for d in verify_store(copy).damages}
    job = stored(copy)
    with pytest.raises(StoreError) as caught:
        load_summary(copy, "main") if name == COMMIT else run_tract(make_plan(job))
    assert caught.value.code == code


@pytest.mark.parametrize("kind", ["chunk", "shard index", "mask", "matched warp", "coadd"])
def test_a_deleted_plane_is_not_read_as_an_empty_one(copy, kind):
    path, _, index = KINDS[kind].partition("/c/")
    places = tuple(map(int, index.split("/")))[:-2]
    store = open_store(copy.url)
    assert store.read_plane(path, places).size
    copy.delete(KINDS[kind])
    with pytest.raises(StoreError) as caught:
        store.read_plane(path, places)
    assert caught.value.code == "store-corrupt"
    name = {"chunk": "image", "shard index": "variance", "coadd": "coadd"}.get(kind)
    if name:
        with pytest.raises(StoreError, match="is gone"):
            open_tract(copy.url)[name].load()


def test_the_unmatched_coadd_of_a_lost_recipe_is_not_read_as_an_empty_one(copy):
    assert open_tract(copy.url)["unmatched_coadd"].load().notnull().any()
    copy.write_bytes(KINDS["recipe"], b"{")
    with pytest.raises(StoreError, match="cannot be read back"):
        open_tract(copy.url)["unmatched_coadd"].load()
    copy.delete(KINDS["recipe"])
    with pytest.raises(StoreError, match="is gone"):
        open_tract(copy.url)["unmatched_coadd"].load()


def test_a_commit_without_its_receipts_is_found(copy):
    for name in list(copy.list("runs/main/receipts/coadd")):
        copy.delete(name)
    found = verify_store(copy)
    assert {(d.code, d.stage) for d in found.damages} == {("receipts-missing", "coadd")}


def stored(place):
    from bgmatch_dask.pipeline.resume import stored_config

    return stored_config(place, "main")


@pytest.mark.parametrize("fault", FAULTS)
def test_repair_restores_every_byte(copy, as_calm, fault):
    for kind, name in KINDS.items():
        if kind != "root metadata" or fault != "delete":
            damage(copy, name, fault)
    after = mend(copy)
    assert after.damages == ()
    as_calm(copy)
    assert load_summary(copy, "main")["visits"]


@pytest.mark.parametrize(
    ("name", "fault"), [("zarr.json", "delete"), (RECEIPTS, "flip"), (COMMIT, "flip")]
)
def test_what_the_store_knows_of_itself_is_restored(copy, as_calm, name, fault):
    damage(copy, name, fault)
    assert mend(copy).damages == ()
    as_calm(copy)


def test_only_what_is_damaged_is_done_again(copy):
    damage(copy, KINDS["chunk"], "flip")
    tags = {name: copy.tag(name) for name in copy.list("direct") if "/c/" in name}
    mend(copy)
    changed = {name for name, tag in tags.items() if copy.tag(name) != tag}
    assert changed == {f"direct/{p}/c/1/0/0/0" for p in ("image", "variance", "mask")}
    # The redone pixels are the same, so that nothing that was made of them is done again.
    coadds = [r for r in _receipts(copy, "coadd") if r.unit == "0"]
    assert coadds[0].attempt == 1


def _receipts(place, stage):
    from bgmatch_dask.store import Ledger

    return Ledger(place, "main").read(stage).values()


def test_leftover_partial_files_are_found_and_swept(copy):
    partial = copy.local_path / "direct/image/c/0/0/0/0#1"
    partial.write_bytes(b"half")
    assert [(d.code, d.name) for d in verify_store(copy).damages] == [
        ("leftover", "direct/image/c/0/0/0/0#1")
    ]
    assert mend(copy).damages == ()
    assert not partial.exists()


def test_the_command_finds_repairs_and_tells(copy):
    damage(copy, KINDS["coadd"], "flip")
    run = CliRunner().invoke
    found = run(app, ["verify", copy.url, "--json"])
    assert found.exit_code == 4
    assert json.loads(found.stdout)["redo"] == [["main", "coadd", "0"]]
    repaired = run(app, ["verify", copy.url, "--repair", "--workers", "1", "--quiet"])
    assert repaired.exit_code == 0, repaired.output
    assert "1 unit(s) done again, 0 damage(s) left" in repaired.stdout
    assert run(app, ["verify", copy.url]).exit_code == 0


def test_two_drivers_at_once_are_refused(copy, warps):
    with hold_store(copy, "the first"), pytest.raises(StoreError) as caught:
        run_tract(make_plan(tiny_job(warps, copy.local_path)))
    assert caught.value.code == "lock-held"


def test_a_store_of_another_schema_is_refused(copy, warps):
    root = copy.read_json("zarr.json")
    root["attributes"]["bgmatch_schema"] = 0
    copy.write_json("zarr.json", root)
    for call in (lambda: open_tract(copy.url), lambda: run_tract(make_plan(stored(copy)))):
        with pytest.raises(StoreError) as caught:
            call()
        assert caught.value.code == "store-schema"


def test_a_view_of_a_run_that_lost_its_commit_shows_no_products(copy):
    copy.delete(COMMIT)
    assert "coadd" not in open_tract(copy.url)


@contextmanager
def mounted(folder, *options):
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs to mount")
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(tmp_path, warps, as_calm):
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=600k", "tmpfs") as folder:
        job = tiny_job(warps, folder / "tract.zarr")
        with pytest.raises(BgmatchError) as caught:
            run_tract(make_plan(job))
        assert caught.value.code == "store-full"
        assert "tract.zarr" in str(caught.value)
        subprocess.run(["mount", "-o", "remount,size=50m", str(folder)], check=True)
        run_tract(make_plan(job))
        as_calm(Location.of(job.store.url))
        assert verify_store(Location.of(job.store.url)).damages == ()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs to mount")
def test_a_read_only_place_is_refused_before_any_work(tmp_path, warps):
    with mounted(tmp_path / "frozen", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs") as folder:
        job = tiny_job(warps, folder / "tract.zarr")
        with pytest.raises(StoreError) as caught:
            run_tract(make_plan(job))
        assert caught.value.code in {"store-write", "store-unreachable"}
        assert str(folder) in str(caught.value)
