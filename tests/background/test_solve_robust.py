"""Honest errors, and visits that go wrong without harm to the others."""

import dataclasses

import numpy as np
import pytest

from benchmarks.solver_scale import NOISE, judge, make_tract
from bgmatch_dask.background.cross_validation import cross_validate
from bgmatch_dask.background.offsets import at_superpixels
from bgmatch_dask.background.solve import solve_offsets

BAD = 2


def solved(tract, differences=None, config=None):
    pairs = tract.differences if differences is None else differences
    return solve_offsets(pairs, tract.differences.coverage, tract.grid, 0, config)


def test_claimed_errors_are_those_made():
    pulls = []
    for seed in range(5):
        tract = make_tract(4, 10, seed)
        pulls.append(judge(tract, solved(tract))[1])
    assert 0.8 < np.sqrt(np.mean(np.concatenate(pulls) ** 2)) < 1.2


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
    for visit in set(clean.offsets) - {BAD}:
        change = at_superpixels(found.offsets[visit]) - at_superpixels(clean.offsets[visit])
        sigma = np.sqrt(found.offsets[visit].variance)
        inside = tract.differences.coverage[visit]
        # About one sigma. On so few superpixels the strengths of all visits move with one.
        assert np.sqrt(np.mean((change / sigma)[inside] ** 2)) < 1.5


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
