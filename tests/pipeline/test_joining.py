"""Later nights: a visit joins a finished tract, and only what is new is read and measured."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest

from bgmatch_dask import open_tract
from bgmatch_dask.errors import StoreError
from bgmatch_dask.pipeline.events import Note, UnitDone
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.results import load_offset, load_summary
from bgmatch_dask.pipeline.resume import stored_config
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.store import Location, open_store
from bgmatch_dask.store.traffic import recorded
from bgmatch_dask.store.versions import current_version
from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract
from tests.conftest import make_job

VISITS = 21
BINS = "background.bin_size=32"


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """Warps of 20 visits in one folder, and of the last visit in another."""
    folder = tmp_path_factory.mktemp("nights")
    config = SimulationConfig(visits=VISITS, patches=(2, 2), patch_size=128, border=16)
    simulate_tract(folder, config)
    labels = sorted({_visit(path) for path in (folder / "warps").iterdir()}, key=int)
    assert len(labels) == VISITS
    (folder / "first").mkdir()
    (folder / "later").mkdir()
    for path in (folder / "warps").iterdir():
        shutil.copy(path, folder / ("later" if _visit(path) == labels[-1] else "first"))
    return folder


def _visit(path):
    from bgmatch_dask.warps.lsst import read_lsst_header

    return read_lsst_header(str(path), max_pixels=10**8).visit


@pytest.fixture(scope="module")
def from_scratch(nights):
    job = make_job(nights / "warps", nights / "scratch.zarr", BINS)
    run_tract(make_plan(job))
    return Location.of(job.store.url)


@pytest.fixture(scope="module")
def finished(nights, tmp_path_factory):
    """A finished store of 20 visits, whose input files are gone."""
    job = make_job(nights / "first", tmp_path_factory.mktemp("finished") / "tract.zarr", BINS)
    run_tract(make_plan(job))
    shutil.rmtree(nights / "first")
    return job


@pytest.fixture
def first(finished, tmp_path):
    place = tmp_path / "tract.zarr"
    shutil.copytree(finished.store.url, place)
    store = finished.store.model_copy(update={"url": str(place)})
    return finished.model_copy(update={"store": store})


def joining(job, folder):
    inputs = job.inputs.model_copy(update={"paths": (str(folder),), "join": True})
    return job.model_copy(update={"inputs": inputs})


def same_coadds(place, from_scratch):
    """Check that the second version has the bytes of the first one of another store."""
    assert current_version(place, "main") == "main@2"
    names = [name for name in from_scratch.list("coadd/main_matched") if "/c/" in name]
    assert names
    for name in names:
        mine = name.replace("main_", "main@2_", 1)
        assert place.read_bytes(mine) == from_scratch.read_bytes(name), name


def pixels_read(traffic):
    """Return the (visit, patch) of the warps whose pixels were read."""
    names = [n.split("/") for n in traffic.read if n.startswith(("direct/image/c", "direct/mask"))]
    return {(int(n[3]), int(n[4])) for n in names if "c" in n}


def test_a_visit_joins_without_reading_what_is_known(first, nights, from_scratch):
    place = Location.of(first.store.url)
    before = {n: place.tag(n) for n in place.list("direct") if "/c/" in n}
    hubs = {pair["hub"] for pair in load_summary(place, "main")["pairs"]}
    units: Counter = Counter()
    with recorded() as traffic:
        run_tract(
            make_plan(joining(first, nights / "later")),
            None,
            (lambda e: units.update([e.stage] if isinstance(e, UnitDone) else []),),
            until="offsets",
        )
    store = open_store(place.url)
    assert len(store.spec.visits) == VISITS
    # Until its coadds are made, the products of the first night are in force.
    with open_tract(place.url) as shown:
        assert shown.attrs["version"] == "main"
        assert shown["offset"].shape[0] == VISITS
        assert np.isnan(shown["offset"][-1].values).all()
        assert np.isnan(shown["matched"][-1, 0].values).all()
    new = store.spec.visits[-1]
    patches = {patch for visit, patch in pixels_read(traffic) if store.spec.visits[visit] == new}
    old = {(store.spec.visits[v], p) for v, p in pixels_read(traffic) if v != VISITS - 1}
    # Of the old warps only those of hubs are read, where the new visit overlaps them.
    assert {visit for visit, _ in old} <= hubs
    assert len(hubs) < 10
    assert {patch for _, patch in old} <= patches
    assert old
    assert units == {"ingest": len(patches), "difference": len(patches)}
    assert {n: place.tag(n) for n in before} == before
    scratch = open_store(from_scratch.url)
    summary = load_summary(from_scratch, "main")
    matched = [row["visit"] for row in summary["visits"] if row["status"] == "matched"]
    assert new in matched
    for visit in matched:
        mine, theirs = load_offset(store, "main@2", visit), load_offset(scratch, "main", visit)
        np.testing.assert_allclose(mine.nodes, theirs.nodes, rtol=0, atol=1e-6)


def test_the_next_run_makes_the_coadds_of_all_visits(first, nights, from_scratch):
    run_tract(make_plan(joining(first, nights / "later")), until="offsets")
    place = Location.of(first.store.url)
    assert current_version(place, "main") == "main"
    summary = run_tract(make_plan(stored_config(place, "main")))
    assert summary["rejected"] == []
    assert len(load_summary(place, "main")["visits"]) == VISITS - 1
    assert len(load_summary(place, "main@2")["visits"]) == VISITS
    same_coadds(place, from_scratch)


def test_a_folder_that_grew_is_the_same_as_joining(first, nights, tmp_path, from_scratch):
    grown = first.model_copy(
        update={"inputs": first.inputs.model_copy(update={"paths": (str(nights / "warps"),)})}
    )
    notes: list[str] = []
    # The same files at another place are other inputs, and their contents are read anew.
    run_tract(
        make_plan(grown),
        None,
        (lambda e: notes.append(e.text) if isinstance(e, Note) else None,),
    )
    place = Location.of(first.store.url)
    same_coadds(place, from_scratch)
    assert any("input files changed" in text for text in notes)


def test_joining_with_other_settings_is_refused(first, nights):
    job = joining(first, nights / "later")
    job = job.model_copy(update={"background": job.background.model_copy(update={"n_sigma": 2.5})})
    with pytest.raises(StoreError, match=r"background.n_sigma 3.0 → 2.5") as caught:
        run_tract(make_plan(job), until="offsets")
    assert caught.value.code == "join-settings"
