"""Per-warp matching: golden numbers of LSST, and the behaviour its tests asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bgmatch_dask.background.per_warp import (
    PerWarpConfig,
    WarpFigures,
    WarpGate,
    WarpMatch,
    add_match_noise,
    choose_reference_warp,
    match_warp,
    match_warps,
    reference_costs,
    weigh_match,
)
from bgmatch_dask.errors import ConfigError, InputError, MatchError
from bgmatch_dask.geometry import Box
from bgmatch_dask.maskplanes import MASK_PLANES
from bgmatch_dask.numerics.cells import CellGrid
from bgmatch_dask.numerics.chebyshev import Weighting
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.rendering import UndersampleStyle
from bgmatch_dask.numerics.statistics import Property
from bgmatch_dask.warps.background_fits import read_background_list, write_background_list
from bgmatch_dask.warps.warp import Warp

THROW = UndersampleStyle.THROW_EXCEPTION
REDUCE = UndersampleStyle.REDUCE_INTERP_ORDER
INCREASE = UndersampleStyle.INCREASE_NXNYSAMPLE
SIZE = 600


def warp_of(image, variance=1.0, x0=0, y0=0) -> Warp:
    image = np.asarray(image, np.float32)
    planes = (np.full(image.shape, variance, np.float32), np.zeros(image.shape, np.int32))
    return Warp(Box(x0, y0, image.shape[1], image.shape[0]), image, *planes)


def noisy(level, seed) -> Warp:
    return warp_of(level + np.random.default_rng(seed).standard_normal((SIZE, SIZE)))


@pytest.fixture(scope="module")
def plain():
    return noisy(50, 1)


@pytest.fixture(scope="module")
def gap():
    warp = noisy(10, 2)
    warp.image[:, 200:300] = np.nan
    return warp


@pytest.fixture(scope="module")
def low():
    warp = noisy(20, 3)
    warp.image[:, 200:] = np.nan
    return warp


def polynomial(bin_size, order=8, undersample=REDUCE, **options) -> PerWarpConfig:
    return PerWarpConfig(
        use_polynomial=True, bin_size=bin_size, order=order, undersample=undersample, **options
    )


def assert_matched(match: WarpMatch, reference: Warp) -> None:
    image = match.warp.image
    assert abs(np.nanmean(image) - np.nanmean(reference.image)) < np.nanvar(reference.image)
    assert match.figures.matched_mse < 1.01 * match.figures.difference_variance


# --- numbers of LSST ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    y, x = np.mgrid[:50, :60].astype(np.float64)
    reference = 50 + 0.02 * x + np.mod(x * y + 2 * x + 3 * y, 11) - 5
    science = 10 - 0.03 * y + np.mod(x * y + 5 * x + y, 13) - 6
    science[:, 20:30] = np.nan
    return warp_of(reference), warp_of(science)


GOLDEN = {"mask": (), "bin_size": 16}


def test_golden_spline(golden):
    match = match_warp(*golden, PerWarpConfig(**GOLDEN), upstream=True)
    background, image = match.model.background, match.model.render()
    assert background.values.shape == (4, 4)
    cells = [40.1405144, 40.5969238, 40.7712822, 41.0866661]
    errors = [0.33291665, 0.55310887, 0.33922914, 0.34874749]
    np.testing.assert_allclose(background.values[0], cells, rtol=1e-7)
    np.testing.assert_allclose(np.sqrt(background.variance[0]), errors, rtol=1e-6)
    found = [image[0, 0], image[25, 25], image[49, 59]]
    np.testing.assert_allclose(found, [39.5752640, 41.1288490, 42.4965057], rtol=2e-7)
    assert np.isfinite(match.figures.residuals).sum() == 16
    assert match.figures.fit_rms == pytest.approx(0.47575042, rel=1e-6)
    assert match.figures.matched_mse == pytest.approx(22.68198316, rel=1e-7)


COEFFICIENTS = {
    Weighting.INVERSE_SIGMA: (
        *(41.1770692, 0.590511617, 0.737967614),
        *(-0.0220871181, -0.00127945298, -0.0137113665),
    ),
    Weighting.NONE: (
        *(41.1808092, 0.587015384, 0.735476303),
        *(-0.0294342041, 0.00135009766, -0.00710487366),
    ),
    Weighting.INVERSE_VARIANCE: (
        *(41.1741287, 0.593866912, 0.739896365),
        *(-0.0150601775, -0.00354521493, -0.0185749037),
    ),
}


@pytest.mark.parametrize("weighting", list(COEFFICIENTS))
def test_golden_polynomial(golden, weighting):
    config = polynomial(16, 2, mask=(), weighting=weighting)
    fit = match_warp(*golden, config).model.polynomial
    np.testing.assert_allclose(fit.coefficients, COEFFICIENTS[weighting], rtol=2e-6, atol=2e-8)


def test_golden_polynomial_figures(golden):
    match = match_warp(*golden, polynomial(16, 2, mask=()), upstream=True)
    expected = COEFFICIENTS[Weighting.INVERSE_SIGMA]
    np.testing.assert_allclose(match.model.polynomial.coefficients, expected, rtol=2e-6, atol=2e-8)
    assert match.figures.fit_rms == pytest.approx(0.48891418, rel=1e-6)
    assert match.figures.matched_mse == pytest.approx(22.67847691, rel=1e-7)


def test_golden_costs():
    figures = ((4, 5, 9), (50, 10, 20), (360000, 300000, 120000))
    costs = reference_costs(*figures, upstream=True)
    np.testing.assert_allclose(costs, [0.511111, 0.422222, 0.88], atol=1e-6)
    # Positive levels: ours differs by a constant.
    np.testing.assert_allclose(np.ptp(costs - reference_costs(*figures)), 0.0, atol=1e-15)


# --- behaviour that the tests of LSST asked for ---------------------------------------------


@pytest.mark.parametrize("bin_size", [601, 701, 801, 901])
@pytest.mark.parametrize(("style", "upstream"), [(THROW, False), (REDUCE, True)])
def test_bins_larger_than_the_image_are_refused(plain, gap, bin_size, style, upstream):
    with pytest.raises(ValueError, match="per-warp-bin-too-large"):
        match_warp(plain, gap, polynomial(bin_size, undersample=style), upstream=upstream)


@pytest.mark.parametrize("order", range(3, 8))
@pytest.mark.parametrize(("style", "upstream"), [(THROW, False), (REDUCE, True)])
def test_orders_beyond_the_bins_are_refused(plain, gap, order, style, upstream):
    config = polynomial(256, order, style)
    with pytest.raises(ValueError, match="per-warp-undersampled"):
        match_warp(plain, gap, config, upstream=upstream)


@pytest.mark.parametrize(("bin_size", "order", "used"), [(601, 8, 0), (256, 7, 2)])
def test_a_small_image_reduces_the_order(plain, gap, bin_size, order, used):
    match = match_warp(plain, gap, polynomial(bin_size, order))
    assert match.model.polynomial.order == used
    assert_matched(match, plain)


def test_a_small_image_gets_smaller_cells(plain, gap):
    match = match_warp(plain, gap, polynomial(601, 3, INCREASE))
    assert match.model.polynomial.order == 3
    assert_matched(match, plain)


@pytest.mark.parametrize("upstream", [False, True])
@pytest.mark.parametrize(("bin_size", "order"), [(600, 0), (300, 1), (200, 2), (100, 5)])
def test_polynomials_of_fitting_order_succeed(plain, gap, bin_size, order, upstream):
    assert_matched(match_warp(plain, gap, polynomial(bin_size, order), upstream=upstream), plain)


@pytest.mark.parametrize("config", [PerWarpConfig(), polynomial(64)], ids=["spline", "polynomial"])
def test_different_sizes_are_refused(plain, config):
    smaller = plain.crop(Box(0, 0, 500, 500))
    with pytest.raises(RuntimeError, match="per-warp-box"):
        match_warp(plain, smaller, config)


@pytest.mark.parametrize("upstream", [False, True])
@pytest.mark.parametrize(
    "config", [PerWarpConfig(bin_size=64), polynomial(64)], ids=["spline", "polynomial"]
)
def test_a_ramp_is_matched(plain, config, upstream):
    y, x = np.mgrid[:SIZE, :SIZE]
    science = noisy(10, 4)
    science = replace(science, image=(science.image + x + 2 * y).astype(np.float32))
    assert_matched(match_warp(plain, science, config, upstream=upstream), plain)


@pytest.mark.parametrize("upstream", [False, True])
def test_low_coverage_polynomial(plain, low, upstream):
    with pytest.raises(ValueError, match="per-warp-undersampled"):
        match_warp(plain, low, polynomial(64, undersample=THROW), upstream=upstream)
    reduced = match_warp(plain, low, polynomial(64), upstream=upstream)
    assert reduced.model.polynomial.order == 3
    assert_matched(reduced, plain)
    increased = match_warp(plain, low, polynomial(128, 4, INCREASE), upstream=upstream)
    assert increased.model.polynomial.order == 4
    # A size of 51 pixels was taken for a number of cells.
    assert increased.model.background.control.nx == (51 if upstream else 15)
    assert_matched(increased, plain)


def test_the_order_falls_to_what_the_rank_allows(plain):
    """Three cells that span three columns and rows, but not a polynomial of order 2."""
    science = noisy(20, 5)
    keep = np.zeros((SIZE, SIZE), bool)
    for cell in range(3):
        keep[200 * cell : 200 * cell + 200, 200 * cell : 200 * cell + 200] = True
    science.image[~keep] = np.nan
    match = match_warp(plain, science, polynomial(200, 2))
    assert match.model.polynomial.order == 0
    assert_matched(match, plain)


@pytest.mark.parametrize(
    "config", [PerWarpConfig(bin_size=64), polynomial(64)], ids=["spline", "polynomial"]
)
@pytest.mark.parametrize("side", ["reference", "science"])
def test_saturated_pixels_do_not_matter(plain, gap, config, side):
    warps = {"reference": plain, "science": gap}
    bad = np.random.default_rng(6).random((SIZE, SIZE)) < 0.05
    warps[side] = replace(
        warps[side],
        image=np.where(bad, np.float32(65000), warps[side].image),
        mask=np.where(bad, np.int32(1 << MASK_PLANES["SAT"]), np.int32(0)),
    )
    match = match_warp(warps["reference"], warps["science"], config)
    assert match.figures.matched_mse < 1.01 * match.figures.difference_variance
    expected = match_warp(plain, gap, config)
    assert np.abs(match.model.render() - expected.model.render()).mean() < 0.05


@pytest.mark.parametrize("upstream", [False, True])
def test_identical_images_switch_weights_off(plain, upstream):
    match = match_warp(plain, plain, polynomial(64), upstream=upstream)
    assert match.model.background.control.approximation.weighting is Weighting.NONE
    assert match.figures.matched_mse == 0
    np.testing.assert_array_equal(match.warp.image, plain.image)


@pytest.mark.parametrize("upstream", [False, True])
def test_noisy_and_sparse_bins_do_not_spoil_the_rest(plain, upstream):
    science = noisy(10, 7)
    random = np.random.default_rng(8)
    part = (slice(64, 256), slice(64, 256))
    science.image[part] += random.normal(0, 30, (192, 192))
    science.image[part][random.random((192, 192)) < 0.99] = np.nan
    match = match_warp(plain, science, polynomial(64), upstream=upstream)
    rest = np.ones((SIZE, SIZE), bool)
    rest[part] = False
    left = (plain.image - match.warp.image)[rest]
    assert np.mean(left**2) < 1.01 * match.figures.difference_variance


def test_spline_with_few_cells(plain, gap):
    assert_matched(match_warp(plain, gap, PerWarpConfig(bin_size=256)), plain)
    for style in (INCREASE, THROW):
        with pytest.raises(RuntimeError, match="per-warp-model"):
            match_warp(plain, gap, PerWarpConfig(bin_size=256, undersample=style))


@pytest.mark.parametrize("style", [InterpStyle.LINEAR, InterpStyle.NATURAL_SPLINE])
def test_spline_across_gaps(plain, gap, low, style):
    across = replace(gap, image=np.ascontiguousarray(gap.image.T))
    for science in (gap, across, low):
        for interpolation in (style, InterpStyle.AKIMA_SPLINE):
            config = PerWarpConfig(bin_size=64, interpolation=interpolation)
            match = match_warp(plain, science, config)
            assert np.isfinite(match.model.render()).all()
            assert_matched(match, plain)


@pytest.mark.parametrize(
    "config", [PerWarpConfig(bin_size=64), polynomial(64)], ids=["spline", "polynomial"]
)
def test_the_place_in_the_tract_does_not_matter(plain, gap, config):
    moved = [replace(w, box=Box(8000, 12000, SIZE, SIZE)) for w in (plain, gap)]
    expected, match = match_warp(plain, gap, config), match_warp(*moved, config)
    np.testing.assert_array_equal(match.warp.image, expected.warp.image)
    part = Box(8100, 12050, 70, 80)
    slices = part.slices_in(match.model.box)
    np.testing.assert_array_equal(match.model.render(part), match.model.render()[slices])


# --- ours -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        PerWarpConfig(bin_size=64, interpolation=InterpStyle.LINEAR),
        PerWarpConfig(bin_size=256),
        polynomial(64, 3),
        polynomial(64, 8, weighting=Weighting.INVERSE_SIGMA),
    ],
)
def test_the_model_and_its_file_draw_what_was_added(plain, low, config, tmp_path):
    match = match_warp(plain, low, config)
    np.testing.assert_array_equal(match.warp.image, low.image + match.model.render())
    write_background_list(match.model.as_list(), tmp_path / "offset.fits")
    read = read_background_list(tmp_path / "offset.fits").render()
    np.testing.assert_array_equal(read, match.model.render())


def test_inputs_are_left_alone_and_noise_is_kept(plain, gap):
    before = plain.image.copy(), gap.image.copy()
    match = match_warp(plain, gap)
    np.testing.assert_array_equal(plain.image, before[0])
    np.testing.assert_array_equal(gap.image, before[1])
    np.testing.assert_array_equal(match.warp.variance, gap.variance)
    assert match.figures.difference_variance == pytest.approx(2.0)


def test_residuals_are_those_of_matched_pixels_in_the_cells_of_the_fit(plain, gap):
    match = match_warp(plain, gap, polynomial(100, 2))
    left = plain.image.astype(np.float64) - match.warp.image
    cell = match.figures.residuals[1, 0]
    assert cell == pytest.approx(left[100:200, :100].mean(), abs=1e-5)
    assert match.figures.grid.shape == match.model.background.values.shape
    rms = np.sqrt(np.nanmean(match.figures.residuals**2))
    assert match.figures.fit_rms == pytest.approx(rms)
    assert match.figures.coverage == 1.0


def test_no_common_pixel_is_an_error_of_its_own(plain):
    nothing = replace(plain, image=np.full_like(plain.image, np.nan))
    for config in (PerWarpConfig(), polynomial(64)):
        with pytest.raises(InputError, match="per-warp-no-overlap"):
            match_warp(plain, nothing, config)


def test_one_good_pixel_gives_its_value_everywhere(plain):
    science = replace(plain, image=np.full_like(plain.image, np.nan))
    science.image[300, 17] = plain.image[300, 17] - 5
    match = match_warp(plain, science)
    np.testing.assert_allclose(match.model.render(), 5, rtol=1e-6)
    upstream = match_warp(plain, science, upstream=True)
    assert np.isnan(upstream.figures.fit_rms)
    assert not WarpGate().decide(upstream.figures).passed
    with pytest.raises(MatchError, match="per-warp-model"):
        match_warp(plain, science, PerWarpConfig(undersample=THROW, bin_size=64))


def test_cells_that_a_clip_empties_are_no_overlap(plain):
    """Of two pixels a clip at 0.1 sigma keeps none, so that no cell has a value."""
    science = replace(plain, image=np.full_like(plain.image, np.nan))
    science.image[300, 17:19] = plain.image[300, 17:19] - np.float32([5, 50])
    config = PerWarpConfig(statistic=Property.MEANCLIP, n_sigma=0.1)
    with pytest.raises(InputError, match="per-warp-no-overlap"):
        match_warp(plain, science, config)


def test_many_warps(plain, gap, low):
    nothing = replace(plain, image=np.full_like(plain.image, np.nan))
    result = match_warps({7: plain, 8: gap, "9": low, 10: nothing}, reference="7")
    assert result.reference == 7
    assert result.choice is None
    assert list(result.matches) == [8, "9", 10]
    assert isinstance(result.matches[10], InputError)
    for visit in (8, "9"):
        assert_matched(result.matches[visit], plain)
    with pytest.raises(MatchError, match="reference-unknown"):
        match_warps({7: plain}, reference=6)


def test_choice_of_the_reference(plain, gap, low):
    choice = choose_reference_warp({1: plain, 2: gap, 3: low})
    assert choice.visit == 2
    nothing = replace(plain, image=np.full_like(plain.image, np.nan))
    with_nothing = choose_reference_warp({0: nothing, 1: plain, 2: gap, 3: low})
    assert with_nothing.visit == 2
    assert np.isnan(with_nothing.costs[0])
    for candidates in ({}, {0: nothing}):
        with pytest.raises(MatchError, match="per-warp-no-reference"):
            choose_reference_warp(candidates)
    assert match_warps({1: plain, 2: gap}).reference == 2


@pytest.mark.parametrize("shift", [0.0, -1000.0, -20.0])
def test_the_level_term_grows_with_the_level(shift):
    level = np.array([5.0, 20.0, 10.0]) + shift
    costs = reference_costs(np.ones(3), level, np.ones(3))
    assert list(np.argsort(costs)) == [0, 2, 1]


def test_equal_candidates_leave_the_choice_to_the_first(plain):
    assert choose_reference_warp({5: plain, 4: plain}).visit == 5
    assert np.isfinite(reference_costs([0, 0], [0, 0], [3, 3])).all()


def figures_of(rms, mse, variance=2.0) -> WarpFigures:
    grid = CellGrid.divide(Box(0, 0, 1, 1), 1, 1)
    return WarpFigures(rms, mse, variance, 1.0, grid, np.zeros((1, 1)))


@pytest.mark.parametrize(
    ("figures", "reasons"),
    [
        (figures_of(1.0, 2.2), ()),
        (figures_of(1.01, 2.0), ("rms",)),
        (figures_of(0.1, 2.3), ("ratio",)),
        (figures_of(float("nan"), 2.0, 0.0), ("ratio", "rms")),
        (figures_of(0.1, 2.0, float("nan")), ("ratio",)),
    ],
)
def test_gate(figures, reasons):
    decision = WarpGate().decide(figures)
    assert decision.reasons == reasons
    assert decision.passed is (not reasons)


def test_noise_of_the_match():
    figures = figures_of(0.5, 2.0)
    variance, weight = (
        add_match_noise(np.ones((2, 2), np.float32), figures),
        weigh_match(0.5, figures),
    )
    np.testing.assert_array_equal(variance, np.full((2, 2), 1.25, np.float32))
    assert weight == pytest.approx(1 / 2.25)


@pytest.mark.parametrize(
    "options",
    [
        {"order": -1},
        {"bin_size": 0},
        {"statistic": Property.SUM},
        {"interpolation": InterpStyle.AKIMA_SPLINE_PERIODIC},
        {"weight_level": 1.5},
        {"error_epsilon": -1.0},
        {"outlier_sigma": 0.0},
        {"mask": ("NO_SUCH_PLANE",)},
        {"n_iter": 0},
    ],
)
def test_options_are_checked(options):
    with pytest.raises(ConfigError):
        PerWarpConfig(**options)


@pytest.mark.parametrize(
    "config", [PerWarpConfig(bin_size=64), polynomial(64, 3)], ids=["spline", "polynomial"]
)
def test_a_trail_can_be_left_out(plain, config):
    science = noisy(10, 9)
    y, x = np.mgrid[:SIZE, :SIZE]
    science.image[np.abs(x - 0.3 * y - 150) < 6] += 5
    wanted = np.float32(40)
    kept = match_warp(plain, science, config)
    assert kept.figures.matched_mse > 1.1 * kept.figures.difference_variance
    match = match_warp(plain, science, replace(config, outlier_sigma=4.0))
    assert match.figures.matched_mse < 1.01 * match.figures.difference_variance
    errors = [np.sqrt(np.mean((m.model.render() - wanted) ** 2)) for m in (match, kept)]
    assert errors[0] < 0.5 * errors[1]
    assert not match.warp.mask.any()


@pytest.mark.parametrize("statistic", [Property.MEDIAN, Property.MEANCLIP])
def test_other_statistics(plain, gap, statistic):
    for config in (PerWarpConfig(statistic=statistic), polynomial(64, statistic=statistic)):
        assert_matched(match_warp(plain, gap, config), plain)
