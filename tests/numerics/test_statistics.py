"""Statistics of one array: golden numbers, properties, and what afw computed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bgmatch_dask.errors import BgmatchError, ConfigError, InputError
from bgmatch_dask.numerics.partial_order import partially_ordered_quartiles
from bgmatch_dask.numerics.statistics import (
    Property,
    Statistics,
    StatisticsControl,
    measure_statistics,
)

VECTORS = Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "afw_math"
QUICK = settings(deadline=None, max_examples=80)
GOLDEN = ("NPOINT", "MEAN", "VARIANCE", "MEDIAN", "IQRANGE", "MEANCLIP", "VARIANCECLIP")
NAN = math.nan


@pytest.mark.parametrize(
    ("pixels", "n_sigma", "expected", "kept", "mean_square"),
    [
        ([1, 2, 3, 2], 3.0, (4, 2, 2 / 3, 2, 0.5, 2, 2 / 3), 4, 4.5),
        (range(11), 3.0, (11, 5, 11, 5, 5, 5, 11), 11, 35),
        (
            [*range(1, 21), 1000],
            3.0,
            (21, 57.61904761904762, 46657.547619047619, 11, 10, 10.5, 35),
            20,
            47755.714285714286,
        ),
        ([3.25] * 9, 3.0, (9, 3.25, 0, 3.25, 0, 3.25, 0), 9, 10.5625),
        ([7.5], 3.0, (1, 7.5, NAN, 7.5, 0, 7.5, NAN), 1, NAN),
        ([NAN], 3.0, (0, NAN, NAN, NAN, NAN, NAN, NAN), 0, NAN),
        ([1, 2, NAN, 4, math.inf, 5], 3.0, (4, 3, 10 / 3, 3, 2.5, 3, 10 / 3), 4, 11.5),
        ([1, 2, 4], 0.1, (3, 7 / 3, 7 / 3, 2, 1.5, NAN, NAN), 0, 7),
    ],
)
def test_golden_numbers(pixels, n_sigma, expected, kept, mean_square):
    image = np.array(list(pixels), np.float32)
    got = measure_statistics(image, control=StatisticsControl(n_sigma=n_sigma))
    np.testing.assert_allclose([got.value(n) for n in GOLDEN], expected, rtol=1e-10)
    assert got.value("NPOINT") - got.value("NCLIPPED") == kept
    assert got.value("NMASKED") == len(image) - got.value("NPOINT")
    np.testing.assert_allclose(got.value("MEANSQUARE"), mean_square, rtol=1e-10)


def test_golden_ties_and_errors():
    ties = measure_statistics(np.array([0] * 7 + [0.001, 5], np.float32))
    assert [ties.value(n) for n in ("IQRANGE", "MEANCLIP", "VARIANCECLIP")] == [0, 0, 0]
    assert ties.value("NCLIPPED") == 2
    got = measure_statistics(np.array([*range(1, 21), 1000], np.float32))
    errors = [got.error(n) for n in ("MEAN", "MEDIAN", "MEANCLIP")]
    np.testing.assert_allclose(errors, [47.1358460395, 59.0760222156, 1.32287565553], rtol=1e-10)
    assert got.error("NPOINT") == got.error("SUM") == got.error("MAX") == 0.0


def test_errors_of_the_variance_are_right_where_afw_is_not():
    image = np.random.default_rng(1).normal(10.0, 2.0, (240, 250)).astype(np.float32)
    got, theirs = measure_statistics(image), measure_statistics(image, upstream=True)
    n, kept = 60000, 60000 - got.value("NCLIPPED")
    assert got.error("VARIANCE") == pytest.approx(4.0 * math.sqrt(2.0 / n), rel=0.02)
    clipped = got.value("VARIANCECLIP")
    assert got.error("VARIANCECLIP") == pytest.approx(clipped * math.sqrt(2.0 / kept), rel=1e-4)
    assert got.error("STDEVCLIP") == pytest.approx(
        0.5 * got.error("VARIANCECLIP") / got.value("STDEVCLIP"), rel=1e-12
    )
    assert math.isnan(theirs.error("VARIANCE"))
    assert math.isnan(theirs.error("VARIANCECLIP"))


def test_extremes_are_those_of_the_pixels():
    image = np.array([[5.0, 6.0], [7.0, np.nan]])
    weights = np.full((2, 2), 0.1)
    control = StatisticsControl(weighting="multiplicative")
    got = measure_statistics(image, weights=weights, control=control)
    theirs = measure_statistics(image, weights=weights, control=control, upstream=True)
    assert (got.value("MIN"), got.value("MAX")) == (5.0, 7.0)
    assert (theirs.value("MIN"), theirs.value("MAX")) == (pytest.approx(0.6), 7.0)


def test_weighted_moments():
    rng = np.random.default_rng(2)
    x, w = rng.normal(100.0, 3.0, 500), rng.uniform(0.5, 2.0, 500)
    variance = 1.0 / w
    control = StatisticsControl(weighting="inverse_variance", error="input_variance")
    got = measure_statistics(x, variance=variance, control=control)
    mean = np.average(x, weights=w)
    spread = (w * (x - mean) ** 2).sum() / (w.sum() - (w * w).sum() / w.sum())
    assert got.value("MEAN") == pytest.approx(mean, rel=1e-12)
    assert got.value("VARIANCE") == pytest.approx(spread, rel=1e-9)
    assert got.value("SUM") == pytest.approx((w * x).sum(), rel=1e-12)
    assert got.error("MEAN") == pytest.approx(1.0 / math.sqrt(w.sum()), rel=1e-12)
    same = measure_statistics(
        x,
        variance=variance,
        weights=w,
        control=StatisticsControl(weighting="multiplicative", error="input_variance"),
    )
    assert same.value("MEANCLIP") == pytest.approx(got.value("MEANCLIP"), rel=1e-14)


def test_error_modes_without_weights():
    x, v = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.0, 1.0, 4.0, 2.0])
    errors = {
        mode: measure_statistics(x, variance=v, control=StatisticsControl(error=mode)).error("MEAN")
        for mode in ("sample", "input_variance", "mosaic")
    }
    assert errors["sample"] == pytest.approx(x.std(ddof=1) / 2)
    assert errors["input_variance"] == pytest.approx(math.sqrt(8.0) / 4)
    assert errors["mosaic"] == pytest.approx(math.sqrt(2.0))


def test_pixels_without_variance_are_left_out_of_the_weighted_sums():
    control = StatisticsControl(weighting="inverse_variance")
    v = np.array([1.0, 1.0, 0.0, -1.0, np.nan])
    got = measure_statistics(np.arange(5.0), variance=v, control=control)
    assert (got.value("NPOINT"), got.value("NMASKED"), got.value("MEAN")) == (2, 3, 0.5)


def test_whole_numbers_spread_ties():
    image = np.array([1, 2, 2, 2, 3], np.int32)
    assert measure_statistics(image).value("MEDIAN") == pytest.approx(2 - 0.5 + 1.5 / 3)
    assert measure_statistics(image.astype(np.float64)).value("MEDIAN") == 2.0


def test_mask_bits():
    image, mask = np.arange(6.0), np.array([0, 1, 2, 4, 8, 3])
    got = measure_statistics(image, mask, control=StatisticsControl(and_mask=1))
    assert (got.value("NPOINT"), got.or_mask) == (4, 14)
    assert measure_statistics(image).or_mask == 0


def test_float64_beyond_float32_is_not_finite():
    got = measure_statistics(np.array([1.0, 1e300, -1e39]))
    assert (got.value("NPOINT"), got.value("MAX")) == (1, 1.0)


def test_nan_is_not_passed_over_when_none_was_promised():
    image = np.array([1.0, 2.0, np.nan])
    got = measure_statistics(image, control=StatisticsControl(nan_safe=False))
    assert got.value("NPOINT") == 3
    assert all(math.isnan(got.value(n)) for n in ("MEAN", "MEDIAN", "IQRANGE", "MEANCLIP"))
    assert (got.value("MIN"), got.value("MAX")) == (1.0, 2.0)


def test_quartiles_of_a_partial_sort_are_the_usual_ones_without_nan():
    for n in (2, 3, 4, 5, 17, 1000):
        values = np.random.default_rng(n).permutation(np.arange(n) // 2).astype(float)
        expected = np.quantile(values, (0.25, 0.5, 0.75))
        np.testing.assert_allclose(partially_ordered_quartiles(values), expected, rtol=1e-14)


@given(arrays(np.float64, st.integers(2, 40), elements=st.sampled_from([np.nan, 0.0, 1.0, 2.0])))
@QUICK
def test_quartiles_of_a_partial_sort_end_with_any_nan(values):
    before = values.copy()
    for quartile in partially_ordered_quartiles(values):
        assert math.isnan(quartile) or 0.0 <= quartile <= 2.0
    np.testing.assert_array_equal(values, before)


@given(
    arrays(
        st.sampled_from([np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int32)]),
        array_shapes(min_dims=1, max_dims=2, max_side=12),
    ),
    st.booleans(),
    st.booleans(),
)
@QUICK
def test_any_pixels_at_all(image, nan_safe, upstream):
    got = measure_statistics(image, control=StatisticsControl(nan_safe=nan_safe), upstream=upstream)
    assert got.value("NPOINT") + got.value("NMASKED") == image.size
    assert set(got.values) == set(got.errors) == set(Property)
    if got.value("NPOINT") and nan_safe:
        assert got.value("MIN") <= got.value("MEDIAN") + 0.5
        assert got.value("MEDIAN") - 0.5 <= got.value("MAX")


@given(st.integers(0, 2**32 - 1), st.integers(2, 300), st.integers(-20, 20))
@QUICK
def test_scale_and_order(seed, n, power):
    rng = np.random.default_rng(seed)
    image = rng.standard_cauchy(n)
    a = measure_statistics(image)
    b = measure_statistics(rng.permutation(image) * 2.0**power)
    assert a.value("NCLIPPED") == b.value("NCLIPPED")
    for name in ("MEAN", "MEDIAN", "IQRANGE", "MEANCLIP", "STDEV", "STDEVCLIP", "MIN", "MAX"):
        scale = max(abs(b.value("MIN")), abs(b.value("MAX")))
        assert b.value(name) == pytest.approx(
            a.value(name) * 2.0**power, rel=1e-9, abs=1e-13 * scale, nan_ok=True
        )


@pytest.mark.parametrize(
    ("arguments", "control", "code"),
    [
        ({"image": np.empty((0, 4))}, {}, "image-empty"),
        ({"image": np.ones(3, complex)}, {}, "image-dtype"),
        ({"mask": np.ones(3)}, {}, "mask-dtype"),
        ({"mask": np.ones(4, int)}, {}, "mask-shape"),
        ({"variance": np.ones(4)}, {}, "variance-shape"),
        ({"weights": np.ones(4)}, {}, "weights-shape"),
        ({}, {"weighting": "inverse_variance"}, "variance-missing"),
        ({}, {"error": "mosaic"}, "variance-missing"),
        ({}, {"weighting": "multiplicative"}, "weights-missing"),
    ],
)
def test_bad_input_is_refused(arguments, control, code):
    with pytest.raises(InputError) as caught:
        measure_statistics(
            **{"image": np.ones(3), **arguments}, control=StatisticsControl(**control)
        )
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"n_sigma": 0.0}, "clip-invalid"),
        ({"n_sigma": math.inf}, "clip-invalid"),
        ({"n_iter": 0}, "clip-invalid"),
        ({"weighting": "some"}, "weighting-unknown"),
        ({"error": "both"}, "error-mode-unknown"),
    ],
)
def test_bad_controls_are_refused(options, code):
    with pytest.raises(ConfigError) as caught:
        StatisticsControl(**options)
    assert caught.value.code == code


def test_unknown_statistic():
    got = measure_statistics(np.ones(3))
    for ask in (got.value, got.error):
        with pytest.raises(ConfigError, match="statistic-unknown"):
            ask("MODE")


def from_vector(arguments):
    """Measure with the control arguments of a vector file."""
    variance_error = arguments.get("calcErrorFromInputVariance", False)
    if variance_error and arguments.get("calcErrorMosaicMode", False):
        raise ConfigError("error-mode-unknown", "Two error modes at once")
    mosaic = "mosaic" if arguments.get("calcErrorMosaicMode", False) else "sample"
    return StatisticsControl(
        n_sigma=arguments.get("numSigmaClip", 3.0),
        n_iter=arguments.get("numIter", 3),
        and_mask=arguments.get("andMask", 0),
        nan_safe=arguments.get("nanSafe", True),
        weighting="inverse_variance" if arguments.get("weighted", False) else "none",
        error="input_variance" if variance_error else mosaic,
    )


ORDER = [
    "NPOINT",
    "MEAN",
    "STDEV",
    "VARIANCE",
    "MEDIAN",
    "IQRANGE",
    "MEANCLIP",
    "STDEVCLIP",
    "VARIANCECLIP",
    "MEANSQUARE",
    "SUM",
    "NCLIPPED",
    "NMASKED",
]


def compare(got: Statistics, values, errors, extremes, or_mask):
    mine = np.array([[got.value(n) for n in ORDER], [got.error(n) for n in ORDER]])
    np.testing.assert_allclose(mine[0], values, rtol=1e-9)
    np.testing.assert_allclose(mine[1], errors, rtol=1e-9)
    np.testing.assert_allclose([got.value("MIN"), got.value("MAX")], extremes, rtol=1e-12)
    assert got.or_mask == or_mask


FILES = sorted(VECTORS.glob("stats_*.npz"))


@pytest.mark.skipif(not FILES, reason="no vectors next to the repository")
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_equals_afw(path):
    data = np.load(path)
    items = json.loads(str(data["params"]))["items"]
    outcome = json.loads(str(data["result"]))
    for i, item in enumerate(items):
        planes = [data.get(f"in_i{i}_{name}") for name in ("img", "mask", "var")]
        for j, arguments in enumerate(item["controls"]):
            if not outcome[f"i{i}_c{j}"]["ok"]:
                with pytest.raises(BgmatchError):
                    measure_statistics(*planes, control=from_vector(arguments), upstream=True)
                continue
            got = measure_statistics(*planes, control=from_vector(arguments), upstream=True)
            out = (data[f"out_i{i}_{name}"][j] for name in ("values", "errors", "minmax", "ormask"))
            compare(got, *out)
