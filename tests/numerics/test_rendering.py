"""Rendering of node grids: a plain twin, parts of images, reduction of the order, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.errors import ConfigError, MatchError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.interpolation import (
    InterpStyle,
    best_style,
    interpolate_or_reduce,
    minimum_points,
)
from bgmatch_dask.numerics.rendering import UndersampleStyle, choose_style, render_nodes

REDUCE = UndersampleStyle.REDUCE_INTERP_ORDER
STYLES = list(InterpStyle)
BOX = Box(-7, 5, 61, 47)


def _grid(seed, nx=7, ny=6, holes=0.0):
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.integers(2, 14, nx)) - 10.5
    y = np.cumsum(rng.integers(2, 14, ny)) - 1.0
    values = rng.normal(100, 5, (ny, nx))
    values[rng.random(values.shape) < holes] = np.nan
    return x, y, values


def _twin(x, y, values, box, style, *, upstream=False):
    # Columns, then rows, one call of the one-dimensional function for each.
    style = choose_style(values.shape, style, REDUCE)
    ty, tx = np.arange(box.y0, box.y1), np.arange(box.x0, box.x1)
    between = np.full((len(ty), len(x)), np.nan)
    for j in range(len(x)):
        good = ~np.isnan(values[:, j])
        between[:, j] = interpolate_or_reduce(
            y[good], values[good, j], ty, style, upstream=upstream
        )
    out = np.full(box.shape, np.nan, np.float32)
    for i, line in enumerate(between):
        good = ~np.isnan(line)
        out[i] = interpolate_or_reduce(x[good], line[good], tx, style, upstream=upstream)
    return out


@pytest.mark.parametrize("holes", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("upstream", [False, True])
@pytest.mark.parametrize("style", STYLES)
def test_equals_the_one_dimensional_twin(style, upstream, holes):
    x, y, values = _grid(1, holes=holes)
    got = render_nodes(x, y, values, BOX, style, REDUCE, upstream=upstream)
    np.testing.assert_array_equal(got.image, _twin(x, y, values, BOX, style, upstream=upstream))
    assert got.style == style
    assert got.box == BOX
    assert got.image.dtype == np.float32


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(STYLES), st.floats(0, 0.6), st.data())
def test_a_part_is_the_same_bytes_as_in_the_whole(seed, style, holes, data):
    x, y, values = _grid(seed, holes=holes)
    x0, y0 = data.draw(st.integers(-7, 50)), data.draw(st.integers(5, 48))
    part = Box(x0, y0, data.draw(st.integers(1, 54 - x0)), data.draw(st.integers(1, 52 - y0)))
    whole = render_nodes(x, y, values, BOX, style, REDUCE).image
    got = render_nodes(x, y, values, part, style, REDUCE).image
    np.testing.assert_array_equal(got, whole[part.slices_in(BOX)])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32 - 1), st.floats(0, 1),
    st.sampled_from(STYLES),
)  # fmt: skip
def test_reduction_takes_any_pattern_of_holes(nx, ny, seed, holes, style):
    x, y, values = _grid(seed, nx, ny, holes)
    got = render_nodes(x, y, values, BOX, style, REDUCE)
    assert np.isnan(got.image).all() == np.isnan(values).all()
    assert np.isnan(got.image).any() == np.isnan(values).all()
    needed = minimum_points(style)
    assert got.style == (style if min(nx, ny) >= needed else best_style(min(nx, ny)))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(-50, 50),
    st.sampled_from([InterpStyle.LINEAR, InterpStyle.NATURAL_SPLINE]),
)
def test_linear_styles_are_linear_in_the_grid(seed, factor, style):
    x, y, one = _grid(seed)
    two = _grid(seed + 1)[2]
    sum_ = render_nodes(x, y, one + factor * two, BOX, style).image
    parts = [render_nodes(x, y, values, BOX, style).image.astype(float) for values in (one, two)]
    scale = np.abs(parts[0]).max() + abs(factor) * np.abs(parts[1]).max()
    assert np.abs(sum_ - (parts[0] + factor * parts[1])).max() <= 3e-7 * scale


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(-3, 3), st.floats(0, 0.3),
    st.sampled_from([style for style in STYLES if style in (1, 2, 3, 5)]),
)  # fmt: skip
def test_ramps_are_exact_up_to_the_edges(seed, gx, gy, holes, style):
    x, y, _ = _grid(seed, 9, 9)
    ramp = 1000 + gx * x + gy * y[:, None]
    # Two good nodes on each line are what a ramp needs.
    hidden = np.random.default_rng(seed).random(ramp.shape) < holes
    hidden[:2] = hidden[:, :2] = False
    ramp[hidden] = np.nan
    got = render_nodes(x, y, ramp, BOX, style, REDUCE).image
    expected = 1000 + gx * np.arange(BOX.x0, BOX.x1) + gy * np.arange(BOX.y0, BOX.y1)[:, None]
    np.testing.assert_allclose(got, expected, rtol=3e-7)


def test_out_is_written():
    x, y, values = _grid(4)
    out = np.empty(BOX.shape, np.float32)
    assert render_nodes(x, y, values, BOX, out=out).image is out
    np.testing.assert_array_equal(out, render_nodes(x, y, values, BOX).image)
    for bad in (out[:, ::2], out.T, out.astype(float), np.asfortranarray(out)):
        with pytest.raises(ConfigError, match="render-out"):
            render_nodes(x, y, values, BOX, out=bad)


def test_empty_boxes_are_empty_images():
    x, y, values = _grid(4)
    for box in (Box(0, 0, 0, 5), Box(0, 0, 5, 0)):
        assert render_nodes(x, y, values, box).image.shape == box.shape


def test_errors():
    x, y, values = _grid(4)
    with pytest.raises(ConfigError, match="grid-shape"):
        render_nodes(x, y, values.T, BOX)
    with pytest.raises(ConfigError, match="grid-shape"):
        render_nodes(x[::-1], y, values, BOX)
    for rule in (UndersampleStyle.THROW_EXCEPTION, UndersampleStyle.INCREASE_NXNYSAMPLE):
        with pytest.raises(ValueError, match="grid-undersampled"):
            render_nodes(x[:4], y, values[:, :4], BOX, undersample=rule)
        holed = values.copy()
        holed[:3, 2] = np.nan
        with pytest.raises(MatchError, match="interp-too-few-points"):
            render_nodes(x, y, holed, BOX, undersample=rule)


def test_kernels_release_the_gil_and_agree_between_threads():
    from concurrent.futures import ThreadPoolExecutor

    x, y, values = _grid(9)
    expected = render_nodes(x, y, values, BOX).image
    with ThreadPoolExecutor(2) as pool:
        images = list(pool.map(lambda _: render_nodes(x, y, values, BOX).image, range(8)))
    for image in images:
        np.testing.assert_array_equal(image, expected)
