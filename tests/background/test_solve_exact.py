"""Noise-free cases that have to come back exactly, and the rules about what is reported."""

import numpy as np
import pytest

from bgmatch_dask.background import surface
from bgmatch_dask.background.offsets import render
from bgmatch_dask.background.solution import Flag, SolveConfig
from bgmatch_dask.background.solve import solve_offsets
from bgmatch_dask.background.superpixels import SuperpixelSums, measure_difference, merge
from bgmatch_dask.errors import ConfigError, MatchError
from bgmatch_dask.geometry import Box, PatchGrid, SuperpixelGrid

BIN = 16


def constant_sums(plane, value):
    """Return the sums of a constant difference over full superpixels."""
    n = np.where(plane, float(BIN * BIN), 0.0)
    zero = np.zeros_like(n)
    second = n * (BIN**2 - 1) / 12
    return SuperpixelSums(n, n * value, zero, zero, second, zero, second, n)


def tiles(boxes, shape):
    grid = SuperpixelGrid(Box(0, 0, shape[1] * BIN, shape[0] * BIN), BIN, BIN)
    coverage = {}
    for visit, (y, x, height, width) in boxes.items():
        plane = np.zeros(shape, bool)
        plane[y : y + height, x : x + width] = True
        coverage[visit] = plane
    return grid, coverage


def constant_differences(coverage, levels):
    visits = list(coverage)
    out = {}
    for i, hub in enumerate(visits):
        for visit in visits[i + 1 :]:
            both = coverage[hub] & coverage[visit]
            if both.any():
                out[hub, visit] = constant_sums(both, levels[hub] - levels[visit])
    return out


def worst_error(solution, levels):
    reference = levels[solution.reference]
    return max(np.abs(o.nodes + levels[v] - reference).max() for v, o in solution.offsets.items())


@pytest.mark.parametrize("order", ["surface", 0])
@pytest.mark.parametrize("n", [40, 100, 200])
def test_chain_of_constants(n, order):
    levels = dict(enumerate(np.random.default_rng(n).normal(0, 50, n)))
    grid, coverage = tiles({v: (0, 3 * v, 4, 4) for v in range(n)}, (4, 3 * n + 1))
    differences = constant_differences(coverage, levels)
    solution = solve_offsets(differences, coverage, grid, 0, SolveConfig(order=order))
    assert worst_error(solution, levels) < 1e-9
    assert len(solution.components) == 1


@pytest.mark.parametrize("order", ["surface", 0])
def test_grid_of_constants(order):
    n = 15
    levels = dict(enumerate(np.random.default_rng(1).normal(0, 50, n * n)))
    boxes = {v: (3 * (v // n), 3 * (v % n), 4, 4) for v in range(n * n)}
    grid, coverage = tiles(boxes, (3 * n + 1, 3 * n + 1))
    differences = constant_differences(coverage, levels)
    solution = solve_offsets(differences, coverage, grid, 7, SolveConfig(order=order))
    assert worst_error(solution, levels) < 1e-9


def ramp_images(patches, visits, rng):
    """Return images of the whole tract: a common sky plus one ramp per visit, with gaps."""
    box = patches.tract_box
    y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1].astype(np.float64)
    out = {}
    for visit in visits:
        level, sx, sy = rng.uniform(200, 1000), *rng.uniform(-0.2, 0.2, 2)
        ramp = level + sx * x + sy * y
        mask = np.zeros(box.shape, np.int32)
        for _ in range(12):
            gy, gx = rng.integers(0, box.height), rng.integers(0, box.width)
            mask[gy : gy + 9, gx : gx + 23] = 1
        out[visit] = (ramp, ramp.astype(np.float32), mask)
    return out


@pytest.mark.parametrize("order", ["surface", 1, 3])
def test_ramps_come_back_on_every_patch(order):
    """Ramps through pixels, patches, partial superpixels, masks and gaps: 1e-6 of the ramp."""
    patches = PatchGrid(0, 0, 150, 130, 10, 3, 3)
    grid = SuperpixelGrid(patches.tract_box, 32, 32)
    rng = np.random.default_rng(3)
    visits = (0, 1, 2, 3)
    images = ramp_images(patches, visits, rng)
    images[2][1][:, 300:] = np.nan
    images[3][1][:100] = np.nan
    differences = {}
    for hub in visits:
        for visit in visits[hub + 1 :]:
            parts = []
            for patch in range(patches.n_patches):
                box = patches.inner_box(patch)
                at = box.slices_in(grid.box)
                sums = measure_difference(
                    images[hub][1][at],
                    images[hub][2][at],
                    images[visit][1][at],
                    images[visit][2][at],
                    box,
                    grid,
                    1,
                    n_sigma=1e6,
                )
                parts.append((grid.window(box), sums))
            differences[hub, visit] = merge(parts, grid)
    solution = solve_offsets(differences, {}, grid, 1, SolveConfig(order=order))
    amplitude = max(np.ptp(ramp) for ramp, _, _ in images.values())
    for visit, offset in solution.offsets.items():
        for patch in range(patches.n_patches):
            box = patches.outer_box(patch)
            at = box.slices_in(grid.box)
            wanted = images[1][0][at] - images[visit][0][at]
            worst = np.abs(render(offset, box) - wanted)[np.isfinite(images[visit][1][at])].max()
            assert worst < 1e-6 * max(amplitude, np.abs(wanted).max())


def small_case(seed=0, noise=0.1):
    rng = np.random.default_rng(seed)
    boxes = {10: (0, 0, 8, 8), 2: (0, 3, 8, 8), 33: (4, 1, 8, 8), 4: (3, 4, 8, 8), 5: (2, 0, 8, 8)}
    grid, coverage = tiles(boxes, (12, 12))
    levels = {v: rng.normal(0, 20) for v in boxes}
    differences = {}
    for pair, sums in constant_differences(coverage, levels).items():
        jitter = rng.normal(0, noise, grid.shape) * sums.count
        squares = sums.count * (noise * BIN) ** 2
        differences[pair] = SuperpixelSums(
            sums.count, sums.total + jitter, squares, sums.x, sums.x2, sums.y, sums.y2, sums.n_good
        )
    return grid, coverage, differences


def as_bytes(solution):
    return {
        v: (o.nodes.tobytes(), o.variance.tobytes(), o.flags.tobytes())
        for v, o in solution.offsets.items()
    }


@pytest.mark.parametrize("order", ["surface", 2])
def test_order_of_the_visits_changes_no_byte(order):
    grid, coverage, differences = small_case()
    config = SolveConfig(order=order)
    first = solve_offsets(differences, coverage, grid, 33, config)
    shuffled = dict(reversed(differences.items()))
    turned = {v: coverage[v] for v in sorted(coverage, reverse=True)}
    second = solve_offsets(shuffled, turned, grid, 33, config)
    assert as_bytes(first) == as_bytes(second)
    assert list(first.offsets) == [2, 4, 5, 10]


def test_the_number_of_threads_changes_no_byte(monkeypatch):
    grid, coverage, differences = small_case()
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(surface, "THREADS", threads)
        found.append(as_bytes(solve_offsets(differences, coverage, grid, 33)))
    assert found[0] == found[1]


def test_gauge_shifts_by_a_constant_only():
    grid, coverage, differences = small_case(noise=0.0)
    one = solve_offsets(differences, coverage, grid, 2)
    other = solve_offsets(differences, coverage, grid, 5)
    assert 2 not in one.offsets
    assert 5 not in other.offsets
    shift = one.offsets[10].nodes - other.offsets[10].nodes
    np.testing.assert_allclose(one.offsets[33].nodes - other.offsets[33].nodes, shift, atol=1e-9)


@pytest.mark.parametrize("label", [0, "0"])
def test_reference_zero_is_honoured(label):
    grid, coverage = tiles({0: (0, 0, 4, 4), 1: (0, 2, 4, 4)}, (4, 6))
    levels = {0: 100.0, 1: 300.0}
    solution = solve_offsets(constant_differences(coverage, levels), coverage, grid, label)
    assert solution.reference == 0
    np.testing.assert_allclose(solution.offsets[1].nodes, -200.0, atol=1e-9)


def test_islands_are_reported_and_flagged():
    boxes = {1: (0, 0, 4, 4), 2: (0, 3, 4, 4), 7: (0, 12, 4, 4), 8: (0, 15, 4, 4), 9: (0, 22, 4, 2)}
    grid, coverage = tiles(boxes, (4, 24))
    levels = {1: 5.0, 2: 9.0, 7: 100.0, 8: 140.0, 9: 0.0}
    differences = constant_differences(coverage, levels)
    solution = solve_offsets(differences, coverage, grid, 2, cost_order=(8, 7, 1, 2, 9))
    assert [(c.gauge, c.visits, c.has_reference) for c in solution.components] == [
        (2, (1, 2), True),
        (8, (7, 8), False),
        (9, (9,), False),
    ]
    np.testing.assert_allclose(solution.offsets[1].nodes, 4.0, atol=1e-9)
    np.testing.assert_allclose(solution.offsets[7].nodes, 40.0, atol=1e-9)
    for lonely in (8, 9):
        assert not solution.offsets[lonely].nodes.any()
    for visit in (7, 8, 9):
        assert (solution.offsets[visit].flags & Flag.DISCONNECTED).all()
    assert not (solution.offsets[1].flags & Flag.DISCONNECTED).any()


def test_isolated_visit_harms_nobody():
    grid, coverage, differences = small_case()
    alone = dict(coverage)
    alone[77] = np.zeros(grid.shape, bool)
    alone[77][11, 11] = True
    before = as_bytes(solve_offsets(differences, coverage, grid, 2))
    after = solve_offsets(differences, alone, grid, 2)
    lonely = after.offsets[77]
    assert not lonely.nodes.any()
    assert (lonely.flags == (Flag.EXTRAPOLATED | Flag.DISCONNECTED)).all()
    assert {v: b for v, b in as_bytes(after).items() if v != 77} == before


def test_a_visit_outside_the_mosaic_shifts_nothing():
    """The lowest label, which an index into a shortened list would take for the next visit."""
    grid, coverage, differences = small_case()
    outside = {0: np.zeros(grid.shape, bool), **coverage}
    before = solve_offsets(differences, coverage, grid, 2)
    after = solve_offsets(differences, outside, grid, 2)
    assert after.reference == 2
    assert not after.offsets[0].nodes.any()
    assert {v: b for v, b in as_bytes(after).items() if v != 0} == as_bytes(before)


@pytest.mark.parametrize("order", ["surface", 0])
def test_only_isolated_visits(order):
    grid, coverage = tiles({1: (0, 0, 2, 2), 2: (0, 4, 2, 2)}, (2, 6))
    solution = solve_offsets({}, coverage, grid, 1, SolveConfig(order=order))
    assert list(solution.offsets) == [2]
    assert solution.pairs == ()
    assert len(solution.components) == 2
    alone = solve_offsets({}, {1: coverage[1]}, grid, 1)
    assert not alone.offsets


def test_flags_tell_where_an_offset_comes_from():
    grid, coverage = tiles({1: (0, 0, 6, 5), 2: (0, 0, 6, 10)}, (6, 10))
    coverage[1][2:4, 2] = False
    differences = constant_differences(coverage, {1: 0.0, 2: 3.0})
    flags = solve_offsets(differences, coverage, grid, 1).offsets[2].flags
    assert flags[0, 0] == Flag.MEASURED
    assert flags[2, 2] == Flag.INTERPOLATED
    assert (flags[:, 5:] == Flag.EXTRAPOLATED).all()


def test_malformed_differences_are_refused():
    grid, coverage, differences = small_case()
    with pytest.raises(MatchError, match="reference-unknown"):
        solve_offsets(differences, coverage, grid, 99)
    with pytest.raises(MatchError, match="pair-invalid"):
        solve_offsets({**differences, (2, 10): differences[10, 2]}, coverage, grid, 2)
    wrong = constant_sums(np.ones((3, 3), bool), 1.0)
    with pytest.raises(MatchError, match="sums-shape"):
        solve_offsets({(10, 2): wrong}, coverage, grid, 2)
    for bad in ({"order": 7}, {"order": -1}, {"smoothing": -1.0}, {"node_pitch": 0}):
        with pytest.raises(ConfigError):
            SolveConfig(**bad)


def test_coarser_nodes_agree_with_the_finest():
    grid, coverage, differences = small_case(noise=0.3)
    fine = solve_offsets(differences, coverage, grid, 2)
    coarse = solve_offsets(differences, coverage, grid, 2, SolveConfig(node_pitch=3))
    assert coarse.pitch == 3
    for visit, offset in coarse.offsets.items():
        there = render(fine.offsets[visit], grid.box)
        assert np.abs(render(offset, grid.box) - there).max() < 0.5
