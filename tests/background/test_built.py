"""The built reference: what is measured against it, and what is solved from that."""

from __future__ import annotations

import numpy as np
import pytest

from bgmatch_dask.background.built import (
    BUILT,
    Member,
    change_of_offsets,
    measure_against_built,
    solve_built,
)
from bgmatch_dask.background.differences import DifferenceSettings, measure_patch
from bgmatch_dask.background.offsets import at_superpixels
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.background.solve import solve_offsets
from bgmatch_dask.geometry import Box, SuperpixelGrid
from bgmatch_dask.maskplanes import NO_DATA, bits_of
from tests.background.plane_reader import PlaneReader

BOX = Box(100, 50, 96, 64)
GRID = SuperpixelGrid(BOX, 16, 16)
DETECTED = bits_of(("DETECTED",))
SETTINGS = DifferenceSettings("pixel", bad_bits=NO_DATA | DETECTED, outlier_sigma=None)
VISITS = ("1", "2", "3", "4")
SKIES = {"1": (5.0, 0.0, 0.0), "2": (40.0, 0.1, 0.0), "3": (-7.0, 0.0, 0.2), "4": (9.0, 0.1, 0.1)}
"""Level and slopes along x and y of the sky of each visit."""
PLANES = SolveConfig(order=1, smoothing=0.0, slope_prior=0.0)


def sky(visit):
    level, dx, dy = SKIES[visit]
    y, x = np.indices(BOX.shape)
    return level + dx * x + dy * y


class Reader(PlaneReader):
    """Visits that see the same sources through their own skies and noise."""

    def __init__(self):
        rng = np.random.default_rng(7)
        sources = rng.exponential(20.0, BOX.shape)
        images = {
            v: (sky(v) + sources + rng.normal(0, 0.3, BOX.shape)).astype(np.float32) for v in VISITS
        }
        masks = {v: np.zeros(BOX.shape, np.int32) for v in VISITS}
        masks["1"][:, 70:] = NO_DATA
        super().__init__(images, masks)


def members(*visits):
    """Return hubs with their true offsets to visit 1."""
    return {v: Member(2.0, (sky("1") - sky(v)).astype(np.float32)) for v in visits}


def measure(reader, hubs, visits=VISITS):
    return measure_against_built(hubs, visits, reader, BOX, GRID, SETTINGS)


def test_every_visit_is_measured_against_the_common_background_on_all_of_the_tract():
    sums = measure(Reader(), members("1", "2", "3"))
    for visit in VISITS:
        expected = (sky("1") - sky(visit)).reshape(4, 16, 6, 16).mean(axis=(1, 3))
        used = sums[visit].count > 0
        # Where visit 1 has no pixels the others stand in for it.
        assert used.sum() == (used.size if visit != "1" else 4 * 5)
        whole = sums[visit].count == 256
        np.testing.assert_allclose(sums[visit].mean[whole], expected[whole], atol=0.15)


def test_a_visit_is_not_measured_against_itself():
    reader = Reader()
    reader.images["2"][16:32, 16:32] += 30.0
    sums = measure(reader, members("1", "2", "3"))
    expected = (sky("1") - sky("2"))[16:32, 16:32].mean() - 30.0
    assert sums["2"].mean[1, 1] == pytest.approx(expected, abs=0.15)
    # One that is the only member has nothing to be measured against.
    alone = measure(reader, members("3"))
    assert alone["3"].count.sum() == 0
    assert (alone["4"].count > 0).all()


def test_sources_of_any_member_and_what_is_left_out_are_not_in_the_reference():
    reader = Reader()
    reader.masks["2"][0:16, 0:16] = DETECTED
    reader.images["2"][32:48, 0:16] += 1000.0
    hubs = members("2", "3")
    out = np.zeros(BOX.shape, bool)
    out[32:48, 0:16] = True
    hubs["2"] = Member(2.0, hubs["2"].offset, out)
    sums = measure(reader, hubs)
    assert sums["4"].count[0, 0] == 0
    assert sums["4"].mean[2, 0] == pytest.approx((sky("1") - sky("4"))[32:48, 0:16].mean(), abs=0.2)


def first_solution(reader):
    pairs = [("1", "2"), ("1", "3"), ("1", "4"), ("2", "3"), ("2", "4"), ("3", "4")]
    found = measure_patch(pairs, reader, BOX, GRID, SETTINGS)
    coverage = {
        v: ((reader.masks[v] & NO_DATA) == 0).reshape(4, 16, 6, 16).any(axis=(1, 3)) for v in VISITS
    }
    return found.sums, coverage, solve_offsets(found.sums, coverage, GRID, "1", PLANES)


def test_offsets_from_the_built_reference_are_true_and_judged_by_the_pairs():
    reader = Reader()
    differences, coverage, first = first_solution(reader)
    sums = measure(reader, members("1", "2", "3"))
    solved = solve_built(first, sums, differences, coverage, PLANES)
    assert solved.reference == "1"
    assert set(solved.offsets) == {"2", "3", "4"}
    assert all(BUILT not in c.visits for c in solved.components)
    assert [(p.hub, p.visit) for p in solved.pairs] == [(p.hub, p.visit) for p in first.pairs]
    for visit, offset in solved.offsets.items():
        expected = (sky("1") - sky(visit)).reshape(4, 16, 6, 16).mean(axis=(1, 3))
        np.testing.assert_allclose(at_superpixels(offset), expected, atol=0.1)
    assert max(abs(pair.mean) for pair in solved.pairs) < 0.05
    assert change_of_offsets(solved, solved, coverage) == 0.0
    assert 0.0 < change_of_offsets(first, solved, coverage) < 0.1


def test_visits_that_nothing_ties_to_the_reference_stay_an_island():
    reader = Reader()
    differences, coverage, _ = first_solution(reader)
    island = {pair: sums for pair, sums in differences.items() if pair in {("1", "2"), ("3", "4")}}
    first = solve_offsets(island, coverage, GRID, "1", PLANES)
    sums = measure(reader, members("1", "2"), ("1", "2"))
    solved = solve_built(first, sums, island, coverage, PLANES)
    assert [c.visits for c in solved.components] == [("1", "2"), ("3", "4")]
    assert [c.has_reference for c in solved.components] == [True, False]
    np.testing.assert_allclose(
        at_superpixels(solved.offsets["4"]), at_superpixels(first.offsets["4"]), atol=1e-9
    )
