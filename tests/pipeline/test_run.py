"""The run as a whole: the same bytes everywhere, nothing done twice, and the truth."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bgmatch_dask.background.offsets import render
from bgmatch_dask.config import ClusterConfig, load_config
from bgmatch_dask.errors import BgmatchError, StoreError
from bgmatch_dask.geometry import Box
from bgmatch_dask.pipeline.engine import DaskEngine
from bgmatch_dask.pipeline.events import Event, StageStarted, UnitDone
from bgmatch_dask.pipeline.plan import clipping, make_plan
from bgmatch_dask.pipeline.results import load_offset, load_summary
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.report.truth_table import compare_with_truth
from bgmatch_dask.service.cluster import connect
from bgmatch_dask.store import Location, open_store

STAGES = ["ingest", "reference", "difference", "solve", "coadd"]


class Recorder:
    """A listener that remembers."""

    def __init__(self):
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def units(self) -> Counter:
        return Counter(e.stage for e in self.events if isinstance(e, UnitDone))


def object_bytes(location: Location, *prefixes: str) -> dict[str, bytes]:
    return {name: location.read_bytes(name) for p in prefixes for name in location.list(p)}


@pytest.fixture(scope="module")
def serial(simulated, tmp_path_factory):
    from tests.conftest import make_job

    job = make_job(simulated / "warps", tmp_path_factory.mktemp("serial") / "tract.zarr")
    listener = Recorder()
    run_tract(make_plan(job), None, (listener,))
    return Location.of(job.store.url), listener


def test_the_stages_run_in_order_and_report_every_unit(serial):
    _, listener = serial
    started = [e.stage for e in listener.events if isinstance(e, StageStarted)]
    assert started == STAGES
    assert listener.units["coadd"] == 4
    assert listener.units["difference"] == 4
    assert 10 < listener.units["ingest"] <= 20


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cluster_gives_the_bytes_of_plain_numpy(serial, simulated, tmp_path, workers, cluster):
    from tests.conftest import make_job

    job = make_job(simulated / "warps", tmp_path / "tract.zarr")
    plan = make_plan(job)
    if workers == 2:
        run_tract(plan, DaskEngine(cluster))
    else:
        with connect(ClusterConfig(workers=1)) as client:
            run_tract(plan, DaskEngine(client))
    kinds = ("direct", "superpixels", "match", "coadd")
    expected = object_bytes(serial[0], *kinds)
    found = object_bytes(plan.location, *kinds)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


def test_a_second_run_does_nothing_again(job):
    run_tract(make_plan(job))
    before = object_bytes(Location.of(job.store.url), "direct", "match", "coadd")
    listener = Recorder()
    run_tract(make_plan(job), None, (listener,))
    assert listener.units == Counter()
    assert object_bytes(Location.of(job.store.url), "direct", "match", "coadd") == before


class StopError(Exception):
    """Stands for anything that ends a run."""


@pytest.mark.parametrize("stage", ["ingest", "difference", "coadd"])
def test_a_run_that_was_stopped_continues_to_the_same_bytes(job, serial, stage):
    def stop(event: Event) -> None:
        if isinstance(event, UnitDone) and event.stage == stage and stop.left == 0:
            raise StopError
        stop.left -= isinstance(event, UnitDone) and event.stage == stage

    stop.left = 2
    with pytest.raises(StopError):
        run_tract(make_plan(job), None, (stop,))
    location = Location.of(job.store.url)
    assert not location.exists("runs/main/commit.json")
    listener = Recorder()
    run_tract(make_plan(job), None, (listener,))
    assert listener.units[stage] == serial[1].units[stage] - 3
    assert object_bytes(location, "match", "coadd") == object_bytes(serial[0], "match", "coadd")


def test_changed_settings_redo_only_what_depends_on_them(job):
    run_tract(make_plan(job))
    listener = Recorder()
    changed = job.model_copy(update={"match": job.match.model_copy(update={"order": 1})})
    run_tract(make_plan(changed), None, (listener,))
    assert listener.units.keys() == {"coadd"}


def test_offsets_meet_the_truth(serial, simulated):
    rows = compare_with_truth(serial[0], "main", simulated)
    assert len(rows) == 4
    for row in rows:
        assert row.rms_error < 0.2 * row.rms_before
        assert row.ratio < (3.0 if row.overlaps_reference else 6.0)


def test_overlaps_are_predicted_by_a_solution_that_has_not_seen_them(job):
    fields = {"cross_validation": 3}
    validated = job.model_copy(update={"match": job.match.model_copy(update=fields)})
    found = run_tract(make_plan(validated))["cross_validation"]
    assert found["folds"] == 3
    assert found["pairs"] == len(found["overlaps"]) > 3
    assert found["rms"] < 0.2 * found["rms_before"]


def test_adjacent_patches_render_identical_offsets(serial):
    store = open_store(serial[0].url)
    patches = store.spec.geometry.patches
    summary = load_summary(serial[0], "main")
    visit = next(v["visit"] for v in summary["visits"] if v["status"] == "matched")
    offset = load_offset(store, "main", visit)
    left, right = patches.outer_box(0), patches.outer_box(1)
    common = left.intersect(right)
    assert common.width == 64
    a = render(offset, left)[common.slices_in(left)]
    b = render(offset, right)[common.slices_in(right)]
    np.testing.assert_array_equal(a, b)
    whole = render(offset, patches.tract_box)
    np.testing.assert_array_equal(a, whole[common.slices_in(patches.tract_box)])


def test_a_summary_is_complete_and_the_commit_is_last(serial):
    summary = load_summary(serial[0], "main")
    assert summary["rejected"] == []
    assert [v["status"] for v in summary["visits"]].count("reference") == 1
    assert summary["overlaps"]["rms_after"] < 0.01 * summary["overlaps"]["rms_before"]
    assert serial[0].exists("runs/main/commit.json")


def test_written_matched_warps_are_image_plus_offset(job):
    job = job.model_copy(update={"match": job.match.model_copy(update={"write_warps": True})})
    summary = run_tract(make_plan(job))
    store = open_store(Location.of(job.store.url).url)
    box = store.spec.geometry.patches.plane_box(0)
    for row in summary["visits"]:
        index = store.spec.visit_index(row["visit"])
        image = store.read("image", index, 0, box)
        if row["status"] == "matched":
            image = image + render(load_offset(store, "main", row["visit"]), box)
        np.testing.assert_array_equal(
            store.read("image", index, 0, box, kind="match/main/warps"), image
        )


def test_the_user_chooses_the_reference(job, simulated):
    visits = make_plan(job).spec.visits
    chosen = job.model_copy(
        update={"reference": job.reference.model_copy(update={"visit": visits[-1]})}
    )
    summary = run_tract(make_plan(chosen))
    assert summary["reference"]["visit"] == visits[-1]
    assert summary["reference"]["forced"]


@pytest.mark.parametrize(
    ("wishes", "code"),
    [
        ({"visit": "7"}, "reference-unknown"),
        ({"chooser": "visit=7"}, "reference-unknown"),
        ({"chooser": "best"}, "chooser-unknown"),
        ({"chooser": "depth", "visit_table": "absent.csv"}, "visit-table"),
    ],
)
def test_a_reference_that_cannot_be_is_refused_before_any_work(job, wishes, code):
    bad = job.model_copy(update={"reference": job.reference.model_copy(update=wishes)})
    with pytest.raises(BgmatchError) as caught:
        make_plan(bad)
    assert caught.value.code == code


def test_depth_reads_the_table_of_visits(job, tmp_path):
    visits = make_plan(job).spec.visits
    table = tmp_path / "visits.csv"
    sharp = visits[-1]
    rows = [f"{v}, 30.0, {0.2 if v == sharp else 1.0}" for v in visits[1:]]
    table.write_text("\n".join(["# seeing of the night", "visit,exposure_time,fwhm", *rows]))
    wishes = {"chooser": "depth", "visit_table": str(table), "weight_coverage": 0.0}
    summary = run_tract(
        make_plan(job.model_copy(update={"reference": job.reference.model_copy(update=wishes)}))
    )
    assert summary["reference"]["visit"] == sharp
    assert summary["reference"]["chooser"] == "depth"
    missing = {c["visit"]: c["missing"] for c in summary["reference"]["candidates"]}
    assert missing == {v: ("fwhm",) if v == visits[0] else () for v in visits}


def test_depth_knows_what_the_headers_tell(job):
    wishes = {"chooser": "depth", "weight_coverage": 0.0}
    summary = run_tract(
        make_plan(job.model_copy(update={"reference": job.reference.model_copy(update=wishes)}))
    )
    assert {c["missing"] for c in summary["reference"]["candidates"]} == {()}


def test_detections_are_left_out_of_choice_and_differences_independently(job):
    plan = make_plan(job)
    for section, changed in (("reference", True), ("match", False)):
        wishes = getattr(job, section).model_copy(update={"mask_detected": False})
        other = make_plan(job.model_copy(update={section: wishes}))
        assert (other.ingest[0].digest != plan.ingest[0].digest) == changed
        assert (clipping(other.config) != clipping(plan.config)) != changed


def test_another_tract_does_not_go_into_the_store(job, simulated):
    run_tract(make_plan(job))
    other = load_config(values=job.model_dump() | {"tract": {"label": "other"}})
    with pytest.raises(StoreError) as caught:
        run_tract(make_plan(other))
    assert caught.value.code == "store-exists"


def ramp(box: Box) -> np.ndarray:
    y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1]
    return 0.02 * x - 0.01 * y


def test_a_ramp_goes_in_and_comes_out(tmp_path):
    """Noise-free visits that differ by a ramp: the offset is the ramp on every patch."""
    from bgmatch_dask.geometry import PatchGrid
    from bgmatch_dask.warps.lsst_writing import write_lsst_warp
    from bgmatch_dask.warps.simulation import SimulationConfig
    from bgmatch_dask.warps.warp import Warp
    from tests.conftest import make_job

    config = SimulationConfig(patches=(3, 2), patch_size=200, border=20)
    patches: PatchGrid = config.geometry.patches
    folder = tmp_path / "warps"
    folder.mkdir()
    for patch in range(patches.n_patches):
        box = patches.outer_box(patch)
        y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1]
        sky = 100.0 + ((7 * x + 13 * y) % 31).astype(np.float32)
        for visit, image in ((1, sky), (2, sky - ramp(box))):
            warp = Warp(
                box,
                image.astype(np.float32),
                np.full(box.shape, 4.0, np.float32),
                np.zeros(box.shape, np.int32),
            )
            write_lsst_warp(
                folder / f"warp_v{visit}_p{patch}.fits",
                warp,
                config.geometry.wcs_cards,
                visit=visit,
                tract=1,
                patch=patch,
                band="r",
            )
    job = make_job(folder, tmp_path / "ramp.zarr", "reference.visit='1'")
    run_tract(make_plan(job))
    store = open_store(Location.of(job.store.url).url)
    offset = load_offset(store, "main", "2")
    for patch in range(patches.n_patches):
        box = patches.outer_box(patch)
        size = np.abs(ramp(patches.tract_box)).max()
        # One float32 rounding of a pixel near 100 is 7.6e-6, and the mean of 4096 of them less.
        np.testing.assert_allclose(render(offset, box), ramp(box), atol=1e-6 * size + 2e-6)
