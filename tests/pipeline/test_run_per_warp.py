"""A run that matches each warp alone: the same bytes everywhere, and nothing without a word."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

import bgmatch_dask
from bgmatch_dask.background.per_warp import match_warp
from bgmatch_dask.coadd.stack import SkyWeight
from bgmatch_dask.config import load_config
from bgmatch_dask.errors import StoreError
from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import bits_of
from bgmatch_dask.pipeline.engine import DaskEngine
from bgmatch_dask.pipeline.events import StageStarted, UnitDone
from bgmatch_dask.pipeline.per_warp import per_warp_config
from bgmatch_dask.pipeline.plan import clipping, make_plan
from bgmatch_dask.pipeline.results import load_summary, offset_on
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.pipeline.warp_offsets import load_patch_offsets
from bgmatch_dask.report.export import export_fits
from bgmatch_dask.report.html import write_report
from bgmatch_dask.store import Location, open_store
from bgmatch_dask.warps.warp import Warp

POLYNOMIAL = ("per_warp.polynomial=true", "per_warp.order=2")


def per_warp_job(simulated, store, *overrides):
    from tests.conftest import make_job

    fixed = ("match.method=per_warp", "per_warp.cell_size=64")
    return make_job(simulated / "warps", store, *fixed, *overrides)


@pytest.fixture(scope="module")
def splines(simulated, tmp_path_factory):
    job = per_warp_job(simulated, tmp_path_factory.mktemp("splines") / "tract.zarr")
    started = []
    run_tract(make_plan(job), None, (started.append,))
    return job, Location.of(job.store.url), started


@pytest.fixture(scope="module")
def polynomials(simulated, tmp_path_factory):
    job = per_warp_job(simulated, tmp_path_factory.mktemp("poly") / "tract.zarr", *POLYNOMIAL)
    run_tract(make_plan(job))
    return job, Location.of(job.store.url), []


@pytest.fixture(scope="module")
def elsewhere(simulated, tmp_path_factory):
    """A run whose reference, forced, has no warp on half of the patches."""
    place = tmp_path_factory.mktemp("elsewhere") / "tract.zarr"
    job = per_warp_job(simulated, place, "reference.visit='1256'")
    return job, run_tract(make_plan(job)), Location.of(job.store.url)


@pytest.fixture(params=["splines", "polynomials"])
def finished(request):
    return request.getfixturevalue(request.param)


def read_warp(store, visit, patch):
    box = store.spec.geometry.patches.outer_box(patch)
    index = store.spec.visit_index(visit)
    image, variance, mask = (
        store.read(name, index, patch, box) for name in ("image", "variance", "mask")
    )
    return Warp(box, image, np.where(np.isnan(variance), np.float32(np.inf), variance), mask)


def object_bytes(location, *prefixes):
    return {name: location.read_bytes(name) for p in prefixes for name in location.list(p)}


def unmatched_units(summary):
    return {(item["visit"], item["patch"]) for item in summary["unmatched"]}


def matched_units(store, summary):
    """Yield (visit, patch) of the warps that have an offset."""
    dataset = bgmatch_dask.open_tract(store.location.url)
    for row in summary["visits"]:
        for patch in range(4):
            image = dataset["image"].sel(visit=row["visit"]).isel(patch=patch)
            unit = (row["visit"], patch)
            known = row["status"] == "matched" and unit not in unmatched_units(summary)
            if known and np.isfinite(image).any():
                yield unit


def test_the_stages_leave_out_difference_and_solution(splines):
    _, location, events = splines
    stages = [e.stage for e in events if isinstance(e, StageStarted)]
    assert stages == ["ingest", "reference", "per_warp", "coadd"]
    assert sum(isinstance(e, UnitDone) and e.stage == "per_warp" for e in events) == 4
    assert len(list(location.list("match/main/per_warp"))) == 4
    assert load_summary(location, "main")["solver"] == {"method": "per_warp"}


def test_stored_offsets_are_drawn_exactly_as_they_were_matched(finished):
    job, location, _ = finished
    store, summary = open_store(location.url), load_summary(location, "main")
    reference, options = summary["reference"]["visit"], per_warp_config(job)
    units = list(matched_units(store, summary))
    assert len(units) >= 8
    for visit, patch in units:
        science = read_warp(store, visit, patch)
        expected = match_warp(read_warp(store, reference, patch), science, options)
        offset = offset_on(store, "main", visit, patch, "per_warp")
        np.testing.assert_array_equal(offset.image(science.box), expected.model.render())
        np.testing.assert_array_equal(
            science.image + offset.image(science.box), expected.warp.image
        )
        noise = np.float32(expected.figures.fit_rms**2)
        assert (offset.variance(science.box) == noise).all()
        part = science.box.grow(-40)
        whole = expected.model.render()[part.slices_in(science.box)]
        np.testing.assert_array_equal(offset.image(part), whole)
        beyond = offset.image(science.box.grow(1))
        assert np.isnan(beyond[0]).all()
        assert np.isfinite(beyond[1:-1, 1:-1]).all()


@pytest.mark.parametrize("options", [(), POLYNOMIAL], ids=["spline", "polynomial"])
def test_a_cluster_gives_the_bytes_of_plain_numpy(request, options, simulated, tmp_path, cluster):
    _, expected, _ = request.getfixturevalue("polynomials" if options else "splines")
    plan = make_plan(per_warp_job(simulated, tmp_path / "tract.zarr", *options))
    run_tract(plan, DaskEngine(cluster))
    kinds = ("direct", "superpixels", "match", "coadd")
    before, found = object_bytes(expected, *kinds), object_bytes(plan.location, *kinds)
    assert found.keys() == before.keys()
    assert [name for name in found if found[name] != before[name]] == []


def test_the_coadd_is_the_mean_of_image_plus_offset(finished):
    job, location, _ = finished
    store, summary, patch = open_store(location.url), load_summary(location, "main"), 1
    bad, reference = bits_of(job.coadd.mask), summary["reference"]["visit"]
    units = [unit for unit in matched_units(store, summary) if unit[1] == patch]
    total = np.zeros(store.spec.geometry.patches.outer_box(patch).shape)
    weights, variances = np.zeros_like(total), np.zeros_like(total)
    for visit, _ in [(reference, patch), *units]:
        warp = read_warp(store, visit, patch)
        image, variance = warp.image, warp.variance
        if visit != reference:
            offset = offset_on(store, "main", visit, patch, "per_warp")
            image = image + offset.image(warp.box)
            variance = variance + offset.variance(warp.box)
        sky = SkyWeight.measure(warp.variance, warp.mask, clipping(job).bad_bits)
        good = np.isfinite(image) & ((warp.mask & bad) == 0) & np.isfinite(variance)
        total[good] += image[good] / sky.variance
        weights[good] += 1.0 / sky.variance
        variances[good] += variance[good] / sky.variance**2
    dataset = bgmatch_dask.open_tract(location.url).isel(patch=patch)
    outer = store.spec.geometry.patches.outer_box(patch)
    window = outer.slices_in(store.spec.geometry.patches.plane_box(patch))
    covered = weights > 0
    assert covered.mean() > 0.5
    for name, expected in (
        ("coadd", total[covered] / weights[covered]),
        ("coadd_variance", variances[covered] / weights[covered] ** 2),
    ):
        found = dataset[name].values[window]
        np.testing.assert_allclose(found[covered], expected, rtol=1e-5)
        assert not np.isfinite(found[~covered]).any()


def test_a_visit_beside_the_reference_is_reported_and_left_out(splines):
    _, location, _ = splines
    summary = load_summary(location, "main")
    row = next(v for v in summary["visits"] if v["status"] == "unmatched")
    assert row["gate"] == "warn"
    assert row["reasons"] == ["no patch is matched: per-warp-no-overlap"]
    found = [item for item in summary["unmatched"] if item["visit"] == row["visit"]]
    assert len(found) == row["n_patches"]
    assert {item["code"] for item in found} == {"per-warp-no-overlap"}
    assert summary["rejected"] == []
    dataset = bgmatch_dask.open_tract(location.url)
    assert np.isnan(dataset["matched"].sel(visit=row["visit"])).all()
    with pytest.raises(StoreError) as caught:
        offset_on(open_store(location.url), "main", row["visit"], found[0]["patch"], "per_warp")
    assert caught.value.code == "offset-missing"


def test_patches_without_the_reference_stay_unmatched(elsewhere):
    _, summary, location = elsewhere
    assert {row["status"] for row in summary["visits"]} == {"reference", "unmatched", "matched"}
    missing = {i["patch"] for i in summary["unmatched"] if i["code"].endswith("reference-missing")}
    assert missing == {0, 2}
    assert location.exists("runs/main/commit.json")
    dataset = bgmatch_dask.open_tract(location.url)
    for patch in missing:
        assert (dataset["nimage"].isel(patch=patch) <= 0).all()
        assert np.isfinite(dataset["unmatched_coadd"].isel(patch=patch)).any()
    partly = next(row for row in summary["visits"] if row["status"] == "matched")
    assert partly["gate"] == "warn"
    assert "patch 0 is not matched: per-warp-reference-missing" in partly["reasons"]


def test_figures_of_a_visit_are_those_of_its_patches_by_pixels(splines):
    job, location, _ = splines
    store, summary = open_store(location.url), load_summary(location, "main")
    options, reference = per_warp_config(job), summary["reference"]["visit"]
    row = next(v for v in summary["visits"] if v["status"] == "matched")
    bits, weights, figures = options.statistics.and_mask, [], []
    for visit, patch in matched_units(store, summary):
        if visit == row["visit"]:
            base, science = read_warp(store, reference, patch), read_warp(store, visit, patch)
            good = np.isfinite(base.image) & np.isfinite(science.image)
            weights.append((good & (((base.mask | science.mask) & bits) == 0)).sum())
            figures.append(match_warp(base, science, options).figures)
    mse = np.average([f.matched_mse for f in figures], weights=weights)
    spread = np.average([f.difference_variance for f in figures], weights=weights)
    rms = np.sqrt(np.average([f.fit_rms**2 for f in figures], weights=weights))
    assert row["ratio"] == pytest.approx(mse / spread)
    assert (row["fit_rms"], row["matched_mse"]) == pytest.approx((rms, mse))
    assert row["gate"] == "pass"


def test_written_warps_are_those_of_the_view_also_after_another_run_of_the_name(
    simulated, tmp_path
):
    joint = per_warp_job(simulated, tmp_path / "t.zarr", "match.write_warps=true")
    joint = joint.model_copy(update={"match": joint.match.model_copy(update={"method": "joint"})})
    run_tract(make_plan(joint))
    changed = joint.match.model_copy(update={"method": "per_warp"})
    run_tract(make_plan(joint.model_copy(update={"match": changed})))
    location = Location.of(joint.store.url)
    dataset = bgmatch_dask.open_tract(location.url)
    assert "offset" not in dataset
    warps = open_store(location.url)
    for name, plane in (("matched", "image"), ("matched_variance", "variance")):
        written = warps.array(f"match/{dataset.version}/warps/{plane}")[:]
        np.testing.assert_array_equal(dataset[name], written)


def test_a_second_run_does_nothing_again_and_another_cell_size_matches_again(simulated, tmp_path):
    job = per_warp_job(simulated, tmp_path / "tract.zarr")
    run_tract(make_plan(job))
    events = []
    run_tract(make_plan(job), None, (events.append,))
    assert not [e for e in events if isinstance(e, UnitDone)]
    changed = load_config(values=job.model_dump() | {"per_warp": {"cell_size": 96}})
    run_tract(make_plan(changed), None, (events.append,))
    assert {e.stage for e in events if isinstance(e, UnitDone)} == {"per_warp", "coadd"}


def test_the_report_says_what_there_is_not(elsewhere):
    _, summary, location = elsewhere
    page = Path(write_report(location, "main")).read_text(encoding="utf-8")
    assert "there is no surface over the tract to show" in page
    assert "per-warp-reference-missing" in page
    assert "good pixels in measured cells" in page
    assert f"{len(summary['unmatched'])} warps without an offset" in page


def test_exported_offsets_and_matched_warps_are_those_of_matched_patches(splines, tmp_path):
    from astropy.io import fits

    _, location, _ = splines
    store, summary = open_store(location.url), load_summary(location, "main")
    units = set(matched_units(store, summary))
    paths = export_fits(location, "main", "offset", tmp_path)
    names = {f"offset_visit{visit}_patch{patch}.fits" for visit, patch in units}
    assert {path.name for path in paths} == names
    visit, patch = min(units)
    offset = offset_on(store, "main", visit, patch, "per_warp")
    box = store.spec.geometry.patches.outer_box(patch)
    with fits.open(tmp_path / f"offset_visit{visit}_patch{patch}.fits") as hdus:
        assert "FLAGS" not in hdus
        np.testing.assert_array_equal(hdus["OFFSET"].data, offset.image(box))
    lost = summary["unmatched"][0]["visit"]
    for product in ("offset", "matched"):
        with pytest.raises(StoreError):
            export_fits(location, "main", product, tmp_path, visit=lost)


def test_the_board_shows_the_offset_of_every_visit(finished):
    from PIL import Image

    from bgmatch_dask.service.board.pictures import offset_pictures

    _, location, _ = finished
    store = open_store(location.url)
    grid, patches = store.spec.grid, store.spec.geometry.patches
    known = [load_patch_offsets(store, "main", patch) for patch in range(patches.n_patches)]
    pictures = {p.label.partition(":")[0]: p for p in offset_pictures(store, "main")}
    assert pictures.pop(next(iter(pictures))).name == "offset-scale"
    assert set(pictures) == {store.spec.visits[index] for found in known for index in found}
    for visit, picture in pictures.items():
        drawn = np.full(grid.shape, np.nan)
        for patch, found in enumerate(known):
            if (offset := found.get(store.spec.visit_index(visit))) is not None:
                image, inner = offset.image(grid.box), patches.inner_box(patch)
                for place in np.ndindex(grid.shape):
                    y, x = int(grid.y_centres[place[0]]), int(grid.x_centres[place[1]])
                    if inner.contains(Box(x, y, 1, 1)):
                        drawn[place] = image[y - grid.box.y0, x - grid.box.x0]
        pixels = np.asarray(Image.open(io.BytesIO(picture.png)), float)[::-1]
        assert pixels.shape[:2] == grid.shape
        # Grey where no cell was measured; elsewhere orange above the level and blue below it.
        shown = (pixels != (213, 221, 232)).any(axis=-1)
        assert 0.5 * np.isfinite(drawn).sum() < shown.sum() <= np.isfinite(drawn).sum()
        level = float(picture.label.partition(": ")[2].replace("\u2212", "-"))
        assert abs(level - np.median(drawn[shown])) < 0.25 * np.std(drawn[shown])
        warmth = (pixels[..., 0] - pixels[..., 2])[shown]
        assert np.corrcoef(warmth, drawn[shown])[0, 1] > 0.8
