import json

import numpy as np
import pytest

from bgmatch_dask.errors import ConfigError, InputError
from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import NO_DATA, bits_of
from bgmatch_dask.warps.lsst import read_lsst_header, read_lsst_warp
from bgmatch_dask.warps.simulation import (
    SimulationConfig,
    draw_truth,
    load_truth,
    simulate_tract,
    true_diffuse,
    true_sky,
    true_sources,
)

CONFIG = SimulationConfig(visits=8, patches=(3, 2), patch_size=150, border=20, seed=5)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    out = tmp_path_factory.mktemp("tract")
    return out, simulate_tract(out, CONFIG)


def _bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _warp(out, visit, patch):
    path = out / "warps" / f"warp_v{visit}_p{patch}.fits"
    return read_lsst_warp(path) if path.exists() else None


def test_files_and_labels(simulated):
    out, summary = simulated
    files = sorted((out / "warps").iterdir())
    assert summary.n_warps == len(files)
    assert summary.n_warps + summary.n_empty == 8 * 6
    assert summary.n_empty > 0
    assert summary.n_bytes == sum(path.stat().st_size for path in files)
    header = read_lsst_header(files[0])
    visit, patch = files[0].stem.removeprefix("warp_v").split("_p")
    assert (header.visit, header.patch, header.band) == (visit, patch, "r")
    assert header.box == CONFIG.geometry.patches.outer_box(int(patch))
    assert header.wcs_cards == CONFIG.geometry.wcs_cards


def test_overlapping_patches_hold_the_same_pixels(simulated):
    out, _ = simulated
    compared = 0
    for visit in CONFIG.visit_ids:
        warps = [_warp(out, visit, patch) for patch in range(6)]
        for first, a in enumerate(warps):
            for b in warps[:first]:
                common = a.box.intersect(b.box) if a and b else Box(0, 0, 0, 0)
                if common.empty:
                    continue
                for name in ("image", "variance", "mask"):
                    left, right = getattr(a.crop(common), name), getattr(b.crop(common), name)
                    assert left.tobytes() == right.tobytes()
                compared += 1
    assert compared > 40


def test_same_seed_same_bytes_in_any_number_of_processes(simulated, tmp_path):
    out, summary = simulated
    again = simulate_tract(tmp_path, CONFIG, workers=2)
    assert (again.n_warps, again.n_bytes) == (summary.n_warps, summary.n_bytes)
    assert _bytes(tmp_path / "warps") == _bytes(out / "warps")
    assert (tmp_path / "truth.json").read_bytes() == (out / "truth.json").read_bytes()


def test_another_seed_is_another_sky(simulated, tmp_path):
    other = SimulationConfig(visits=2, patches=(1, 1), patch_size=150, border=0, seed=6)
    simulate_tract(tmp_path / "a", other)
    same = SimulationConfig(visits=2, patches=(1, 1), patch_size=150, border=0, seed=7)
    simulate_tract(tmp_path / "b", same)
    a, b = (_warp(tmp_path / name, other.visit_ids[1], 0) for name in "ab")
    assert not np.array_equal(a.image, b.image, equal_nan=True)


def test_two_simulations_are_not_mixed(tmp_path):
    config = SimulationConfig(visits=1, patches=(1, 1), patch_size=40, border=0)
    first = simulate_tract(tmp_path, config)
    assert simulate_tract(tmp_path, config) == first
    with pytest.raises(ConfigError) as caught:
        simulate_tract(tmp_path, SimulationConfig(visits=2, patches=(1, 1), patch_size=40))
    assert caught.value.code == "simulation-exists"


def test_progress_counts_units(tmp_path):
    seen = []
    config = SimulationConfig(visits=2, patches=(2, 1), patch_size=40, border=4)
    simulate_tract(tmp_path, config, lambda done, total: seen.append((done, total)))
    assert seen == [(2, 4), (4, 4)]


def test_truth_round_trip(simulated):
    assert load_truth(simulated[0]) == draw_truth(CONFIG)


def test_pixels_agree_with_the_truth(simulated):
    out, _ = simulated
    truth = load_truth(out)
    bad = bits_of(["CR", "BAD", "SAT", "STREAK", "DETECTED", "NO_DATA"])
    checked = 0
    for visit in truth.visits:
        for patch in range(6):
            warp = _warp(out, visit.visit, patch)
            if warp is None:
                continue
            static = true_sources(truth, visit.visit, warp.box) + true_diffuse(truth, warp.box)
            residual = warp.image - static - true_sky(truth, visit.visit, warp.box)
            pull = residual[(warp.mask & bad) == 0] / np.sqrt(
                warp.variance[(warp.mask & bad) == 0].astype(np.float64)
            )
            pull = pull[np.abs(pull) < 5.0]  # Some cosmic rays and a trail are not masked.
            if len(pull) < 3000 or any(not trail.masked for trail in visit.trails):
                continue
            assert abs(pull.mean()) < 5.0 / np.sqrt(len(pull))
            assert abs(pull.std() - 1.0) < 0.04
            checked += 1
    assert checked > 20


def test_coverage_and_overlaps():
    truth = draw_truth(SimulationConfig())
    reference = truth.visit(truth.best_reference)
    lonely = [visit for visit in truth.visits if not visit.overlaps_reference]
    assert len(lonely) == 1
    assert 0.75 < reference.coverage < 0.96
    assert reference.coverage == max(visit.coverage for visit in truth.visits)
    assert reference.sky.level == min(visit.sky.level for visit in truth.visits)
    box = truth.config.geometry.patches.tract_box
    x, y = np.arange(box.width, dtype=float)[np.newaxis], np.arange(box.height)[:, np.newaxis]
    mine = lonely[0].footprint.coverage(x, y * 1.0)[0]
    shared = {
        visit.visit: int((mine & visit.footprint.coverage(x, y * 1.0)[0]).sum())
        for visit in truth.visits
    }
    assert shared[truth.best_reference] == 0
    assert shared[truth.visits[0].visit] == 0
    assert sum(count > 0.3 * mine.sum() for count in shared.values()) >= 5


@pytest.mark.parametrize("visits", [1, 2, 3, 4, 12])
def test_other_numbers_of_visits(visits):
    truth = draw_truth(SimulationConfig(visits=visits, patches=(2, 1)))
    assert len(truth.visits) == visits
    assert truth.visit(truth.best_reference).coverage == max(v.coverage for v in truth.visits)
    assert sum(not visit.overlaps_reference for visit in truth.visits) == (visits >= 4)
    assert all(visit.coverage > 0.1 for visit in truth.visits)


def test_mask_planes_are_present(simulated):
    out, _ = simulated
    seen = 0
    for path in (out / "warps").iterdir():
        warp = read_lsst_warp(path)
        seen |= int(np.bitwise_or.reduce(warp.mask, axis=None))
        empty = (warp.mask & NO_DATA) != 0
        assert np.array_equal(empty, np.isnan(warp.image))
        assert np.array_equal(empty, np.isinf(warp.variance))
    wanted = bits_of(["CR", "BAD", "STREAK", "DETECTED", "NO_DATA", "SENSOR_EDGE"])
    assert seen & wanted == wanted


def test_one_trail_is_not_masked():
    trails = [trail for visit in draw_truth(SimulationConfig()).visits for trail in visit.trails]
    assert [trail.masked for trail in trails].count(False) == 1
    assert len(trails) == 4


def test_diffuse_light_is_positive_and_has_structure():
    truth = draw_truth(SimulationConfig())
    box = truth.config.geometry.patches.tract_box
    light = true_diffuse(truth, Box(box.x0, box.y0, box.width, 300))
    assert light.min() > -1.0
    assert light.std() > 3.0


def test_flux_is_kept_whatever_the_seeing():
    config = SimulationConfig(visits=2, galaxy_density=0.0, star_density=0.0)
    box = Box(0, 0, 50, 50)
    assert true_sources(draw_truth(config), config.visit_ids[0], box).max() == 0.0
    full = draw_truth(SimulationConfig(visits=2, patches=(1, 1)))
    box = full.config.geometry.patches.tract_box.grow(400)
    sums = [true_sources(full, visit.visit, box).sum() for visit in full.visits]
    assert full.visits[0].psf_fwhm != full.visits[1].psf_fwhm
    assert sums[0] == pytest.approx(sums[1], rel=5e-3)


@pytest.mark.parametrize(
    "change", [{"visits": 0}, {"patch_size": 0}, {"border": -1}, {"psf_fwhm": (4.0, 3.0)}]
)
def test_impossible_configurations_are_refused(change):
    with pytest.raises(ConfigError) as caught:
        SimulationConfig(**change)
    assert caught.value.code == "simulation-config"


def test_truth_errors(tmp_path):
    for content, code in ((None, "path-unreadable"), ("{", "truth-unreadable")):
        if content:
            (tmp_path / "truth.json").write_text(content)
        with pytest.raises(InputError) as caught:
            load_truth(tmp_path)
        assert caught.value.code == code
    (tmp_path / "truth.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(InputError) as caught:
        load_truth(tmp_path)
    assert caught.value.code == "truth-unreadable"
    with pytest.raises(InputError) as caught:
        draw_truth(CONFIG).visit(1)
    assert caught.value.code == "visit-unknown"
