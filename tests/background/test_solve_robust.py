"""Honest errors, and visits that go wrong without harm to the others."""

import dataclasses
from dataclasses import fields

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from benchmarks.solver_scale import NOISE, judge, make_tract, pulls
from bgmatch_dask.background.cross_validation import cross_validate
from bgmatch_dask.background.offsets import at_superpixels
from bgmatch_dask.background.solution import SolveConfig
from bgmatch_dask.background.solve import solve_offsets
from bgmatch_dask.background.superpixels import SuperpixelSums

BAD = 2


def solved(tract, differences=None, config=None):
    pairs = tract.differences if differences is None else differences
    return solve_offsets(pairs, tract.differences.coverage, tract.grid, 0, config)


def emptied(tract, empty):
    """Return the differences without the superpixels that are empty in one of both visits."""
    out = {}
    for pair, sums in tract.differences.items():
        keep = ~(empty[pair[0]] | empty[pair[1]])
        planes = {f.name: np.where(keep, getattr(sums, f.name), 0.0) for f in fields(sums)}
        out[pair] = SuperpixelSums(**planes)
    return out


def test_claimed_errors_are_those_made():
    """Pulls over many tracts: where a visit is measured, and across a gap in it."""
    measured, interpolated = (part.std() for part in pulls(25))
    assert 0.9 < measured < 1.1
    assert interpolated < 1.1


def test_cells_with_details_agree_with_the_solution_on_superpixels():
    """One of the visits has scattered light that is sharper than the cells."""
    tract = make_tract(6, 20)
    with threadpool_limits(1):
        direct = solved(tract)
        wide = solved(tract, config=SolveConfig(work_limit=3e8))
    assert direct.iterations == 0
    assert wide.iterations > 0
    errors, pulls = judge(tract, wide)
    assert np.median(errors) < 0.5
    assert errors.max() < 1.0
    assert 0.7 < pulls.std() < 1.3
    for visit, offset in direct.offsets.items():
        difference = at_superpixels(wide.offsets[visit]) - at_superpixels(offset)
        inside = tract.differences.coverage[visit]
        assert np.sqrt(np.mean(difference[inside] ** 2)) < 0.5 * NOISE
    again = solved(tract, config=SolveConfig(work_limit=3e8))
    for visit, offset in wide.offsets.items():
        assert offset.nodes.tobytes() == again.offsets[visit].nodes.tobytes()


def test_few_pairs_per_superpixel_are_enough():
    tract = make_tract(5, 10)
    few = solved(tract, config=SolveConfig(observation_limit=0))
    assert len(few.observations) < 0.8 * len(solved(tract).observations)
    assert judge(tract, few)[0].max() < 1.0


def test_thirty_percent_of_empty_superpixels_do_no_harm(clean_solution):
    tract, clean = clean_solution
    rng = np.random.default_rng(103)
    solution = solved(tract, emptied(tract, {v: rng.random((10, 10)) < 0.3 for v in tract.truth}))
    assert judge(tract, solution)[0].max() < 1.0
    holes = {v: (v == BAD) & (rng.random((10, 10)) < 0.3) for v in tract.truth}
    for share in others_moved(tract, clean, solved(tract, emptied(tract, holes))).values():
        assert share < 0.7


def ghost(rng, shape):
    out = np.zeros(shape)
    out[4:6, 5:7] = 1e4 * NOISE
    return out


def bad_half(rng, shape):
    out = np.zeros(shape)
    out[:, : shape[1] // 2] = rng.normal(0, 100 * NOISE, (shape[0], shape[1] // 2))
    return out


def fleet(rng, shape):
    out = np.zeros(shape)
    for column in (1, 4, 7):
        out[np.arange(shape[0]), (column + np.arange(shape[0]) // 2) % shape[1]] = 40 * NOISE
    return out


@pytest.fixture(scope="module")
def clean_solution():
    tract = make_tract(4, 10, 3)
    return tract, solved(tract)


@pytest.mark.parametrize("harm", [ghost, bad_half, fleet])
def test_a_visit_that_goes_wrong_harms_no_other(harm, clean_solution):
    tract, clean = clean_solution
    plane = harm(np.random.default_rng(1), tract.grid.shape)
    hurt = {}
    for pair, sums in tract.differences.items():
        sign = 1.0 if pair[0] == BAD else -1.0 if pair[1] == BAD else 0.0
        hurt[pair] = dataclasses.replace(sums, total=sums.total + sign * plane * sums.count)
    found = solved(tract, hurt)
    # Their strengths and the curvature that is expected move a little with one visit of four.
    assert max(others_moved(tract, clean, found).values()) < 0.5


def others_moved(tract, clean, found):
    """Return by how many of its sigmas every other visit changed, rms."""
    out = {}
    for visit in set(clean.offsets) - {BAD}:
        change = at_superpixels(found.offsets[visit]) - at_superpixels(clean.offsets[visit])
        inside = tract.differences.coverage[visit]
        out[visit] = np.sqrt(np.mean((change**2 / clean.offsets[visit].variance)[inside]))
    return out


def test_overlaps_left_out_are_predicted():
    tract = make_tract(4, 10, 3)
    data = tract.differences
    found = cross_validate(data, data.coverage, tract.grid, 0, folds=3)
    assert len(found.overlaps) == len(data.pairs)
    assert found.untied == ()
    assert found.rms < NOISE
    pairs = {p: data[p] for p in data.pairs if p != (0, 1)}
    # Along a chain nothing else ties what one overlap ties.
    alone = {p: s for p, s in pairs.items() if 3 not in p or p == (0, 3)}
    found = cross_validate(alone, data.coverage, tract.grid, 0, folds=3)
    assert sorted(found.untied) == [(0, 2), (0, 3), (1, 2)]
