"""Background of one visit that is as sharp as its superpixels, and what only looks like it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from benchmarks.solver_scale import NOISE, make_tract
from bgmatch_dask.background import joint
from bgmatch_dask.background.offsets import at_superpixels
from bgmatch_dask.background.sharp_light import _of_planes
from bgmatch_dask.background.solve import solve_offsets
from bgmatch_dask.numerics.surface_samples import sample_planes

N = 12
BAD = 2


@pytest.fixture(scope="module")
def tract():
    return make_tract(6, N, 3)


def bump(width, peak=100 * NOISE, at=(5.3, 6.6)):
    y, x = np.mgrid[:N, :N]
    return peak * np.exp(-0.5 * ((y - at[0]) ** 2 + (x - at[1]) ** 2) / width**2)


def solved(tract, light):
    """Solve with the light of some visits added."""
    sums = {}
    for (hub, visit), part in tract.differences.items():
        extra = light.get(hub, 0.0) - light.get(visit, 0.0)
        sums[hub, visit] = dataclasses.replace(part, total=part.total + extra * part.count)
    with threadpool_limits(1):
        return solve_offsets(sums, tract.differences.coverage, tract.grid, 0)


def error(tract, solution, light, visit):
    """Return estimated less true offset at the superpixels that the visit covers, else zero."""
    sky = [tract.truth[v] + light.get(v, 0.0) for v in (visit, 0)]
    found = at_superpixels(solution.offsets[visit]) + sky[0] - sky[1]
    return np.where(tract.differences.coverage[visit], found, 0.0)


def rms(values):
    return np.sqrt(np.mean(values**2))


def test_a_bump_of_three_superpixels_is_followed(tract):
    light = {BAD: bump(0.8)}
    solution = solved(tract, light)
    wrong = error(tract, solution, light, BAD)
    there = light[BAD] > 5 * NOISE
    assert there.sum() >= 9
    assert rms(wrong[there]) < 2 * NOISE
    sigma = np.sqrt(solution.offsets[BAD].variance)
    assert np.abs(wrong / sigma)[there].max() < 5
    assert sigma[there].min() > 0.5 * NOISE


def test_it_moves_no_other_visit(tract):
    clean, solution = solved(tract, {}), solved(tract, {BAD: bump(0.8)})
    for visit in set(solution.offsets) - {BAD}:
        change = error(tract, solution, {}, visit) - error(tract, clean, {}, visit)
        # Strengths and trends that visits share move a little.
        assert rms(change) < 0.5 * NOISE


def test_a_bump_of_the_reference_is_in_every_offset(tract):
    light = {0: bump(0.8)}
    solution = solved(tract, light)
    for visit in solution.offsets:
        there = (light[0] > 5 * NOISE) & tract.differences.coverage[visit]
        assert rms(error(tract, solution, light, visit)[there]) < 3 * NOISE


def test_a_single_superpixel_is_bad_and_not_followed(tract):
    spot = np.zeros((N, N))
    spot[5, 6] = 100 * NOISE
    solution = solved(tract, {BAD: spot})
    # The light is no background of the visit: the truth is without it.
    assert np.abs(error(tract, solution, {}, BAD)).max() < 3 * NOISE


def test_where_half_of_the_visits_differ_nobody_is_believed(tract, monkeypatch):
    light = {v: bump(0.8, (1 + v) * 100 * NOISE) for v in (1, 2, 3)}
    solution = solved(tract, light)
    monkeypatch.setattr(joint, "find_sharp_light", lambda tuned: ())
    for visit, offset in solved(tract, light).offsets.items():
        np.testing.assert_array_equal(solution.offsets[visit].nodes, offset.nodes)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_averages_are_what_stands_out(sign):
    left = sign * bump(0.9)
    light = _of_planes(left / NOISE, left, np.full((N, N), 2.0))
    core = np.abs(left) > 5 * NOISE
    assert light.n_superpixels == core.sum()
    np.testing.assert_allclose(sample_planes(light.nodes)[0][core], left[core], atol=1e-3 * NOISE)
    np.testing.assert_array_equal(light.variance[core], 2.0)
    far = np.abs(left) < 0.1 * NOISE
    assert (light.variance[far] == 0.0).all()


@pytest.mark.parametrize("places", [[], [(2, 2)], [(2, 2), (2, 3)], [(2, 2), (4, 4), (9, 9)]])
def test_few_or_scattered_superpixels_are_no_light(places):
    z = np.zeros((N, N))
    for place in places:
        z[place] = 50.0
    assert _of_planes(z, z, np.ones((N, N))) is None
