"""Gridded backgrounds: cells, golden numbers, end rules of the grid, lists of backgrounds."""

from __future__ import annotations

import numpy as np
import pytest

from bgmatch_dask.errors import ConfigError, GeometryError, InputError, MatchError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.background_list import BackgroundElement, BackgroundList
from bgmatch_dask.numerics.cells import CellGrid, measure_cells
from bgmatch_dask.numerics.chebyshev import ChebyshevControl, Weighting
from bgmatch_dask.numerics.gridded import (
    BackgroundControl,
    background_from_values,
    measure_background,
)
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.rendering import UndersampleStyle
from bgmatch_dask.numerics.statistics import Property, StatisticsControl

REDUCE = UndersampleStyle.REDUCE_INTERP_ORDER
THROW = UndersampleStyle.THROW_EXCEPTION
AKIMA, NATURAL, LINEAR, CONSTANT = (
    InterpStyle.AKIMA_SPLINE,
    InterpStyle.NATURAL_SPLINE,
    InterpStyle.LINEAR,
    InterpStyle.CONSTANT,
)
PLACES = ([0, 0, 15, 30, 30], [0, 46, 23, 10, 46])


@pytest.fixture(scope="module")
def image():
    y, x = np.mgrid[:31, :47]
    pixels = 100 + 0.5 * x - 0.25 * y + ((7 * x + 13 * y + x * y) % 17) - 8
    pixels[3, 5] = 1e4
    pixels[20:24, 10:30] = np.nan
    return pixels.astype(np.float32)


def test_golden_cells():
    three = CellGrid.divide(Box(5, 5, 100, 47), 3, 5)
    np.testing.assert_array_equal(three.x_edges, [0, 33, 67, 100])
    np.testing.assert_array_equal(three.x_centres, [16, 49.5, 83])
    np.testing.assert_array_equal(np.diff(three.y_edges), [9, 10, 9, 10, 9])
    np.testing.assert_array_equal(three.y_centres, [4, 13.5, 23, 32.5, 42])
    ten = CellGrid.divide(Box(0, 0, 99, 10), 10, 10)
    np.testing.assert_array_equal(np.diff(ten.x_edges), [10, 10, 10, 10, 10, 9, 10, 10, 10, 10])
    with pytest.raises(ConfigError, match="cells-empty"):
        CellGrid.divide(Box(0, 0, 9, 9), 10, 1)


def test_golden_cell_values(image):
    row = measure_background(image, BackgroundControl(5, 4), upstream=True)
    values = [100.862679, 105.987503, 110.541664, 115.237503, 120.5]
    errors = [0.61688983, 0.56387663, 0.60701835, 0.57903612, 0.58954608]
    np.testing.assert_allclose(row.values[0], values, rtol=2e-6)
    np.testing.assert_allclose(row.variance[0], errors, rtol=2e-6)
    right = measure_background(image, BackgroundControl(5, 4))
    np.testing.assert_allclose(right.variance[0], np.square(errors), rtol=2e-6)
    mean = BackgroundControl(5, 4, statistic=Property.MEAN)
    got = measure_background(image, mean, upstream=True)
    assert got.values[0, 0] == pytest.approx(238.350693, rel=2e-6)
    assert got.variance[0, 0] == pytest.approx(137.489365, rel=2e-6)


@pytest.mark.parametrize(
    ("style", "golden"),
    [
        (AKIMA, [94.744781, 121.701767, 107.257935, 97.717079, 115.920448]),
        (NATURAL, [96.726601, 122.585434, 107.257935, 97.661125, 116.136482]),
        (LINEAR, [98.070099, 123.277916, 107.257935, 97.982491, 116.196350]),
        (CONSTANT, [100.971695, 118.219444, 106.394310, 98.403244, 112.782585]),
    ],
)
def test_golden_images(image, style, golden):
    background = measure_background(image, BackgroundControl(5, 5))
    drawn = background.render(style=style, upstream=True)
    np.testing.assert_allclose(drawn.image[PLACES], golden, rtol=2e-6)
    if style is not CONSTANT:
        np.testing.assert_allclose(background.render(style=style).image[PLACES], golden, rtol=2e-6)


def test_golden_reduction(image):
    background = measure_background(image, BackgroundControl(5, 4))
    drawn = background.render(undersample=REDUCE)
    golden = [97.553864, 123.332375, 108.149788, 96.955887, 117.188309]
    np.testing.assert_allclose(drawn.image[PLACES], golden, rtol=2e-6)
    assert drawn.style is InterpStyle.CUBIC_SPLINE
    assert drawn.undersample is REDUCE
    with pytest.raises(ConfigError, match="grid-undersampled"):
        background.render()


@pytest.mark.parametrize(
    ("style", "golden"),
    [
        (AKIMA, [96.344101, 123.377930, 108.056221, 98.003120, 115.977951]),
        (NATURAL, [97.197182, 123.384850, 108.056221, 97.891663, 116.062393]),
    ],
)
def test_golden_holes(image, style, golden):
    background = measure_background(image, BackgroundControl(5, 5))
    background.values[:, 2] = np.nan
    background.values[:3, 4] = np.nan
    drawn = background.render(style=style, undersample=REDUCE)
    np.testing.assert_allclose(drawn.image[PLACES], golden, rtol=2e-6)
    assert drawn.style is style
    with pytest.raises(MatchError, match="interp-too-few-points"):
        background.render(style=style)


GOLDEN_EVEN = [108.089114, 11.8090361, -3.7273413, 0.1256577, -0.0960192404, 0.142170293]
GOLDEN_WEIGHTED = [108.116645, 11.7898024, -3.73027347, 0.123557352, -0.102519111, 0.147888405]


def test_golden_chebyshev(image):
    background = measure_background(image, BackgroundControl(5, 5))
    even = background.approximate(ChebyshevControl(2, Weighting.NONE))
    np.testing.assert_allclose(even.coefficients, GOLDEN_EVEN, rtol=2e-6)
    weighted = background.approximate(ChebyshevControl(2, Weighting.INVERSE_SIGMA))
    np.testing.assert_allclose(weighted.coefficients, GOLDEN_WEIGHTED, rtol=2e-6)
    upstream = measure_background(image, BackgroundControl(5, 5), upstream=True)
    weighted = upstream.approximate(ChebyshevControl(2, Weighting.INVERSE_VARIANCE))
    np.testing.assert_allclose(weighted.coefficients, GOLDEN_WEIGHTED, rtol=2e-6)


@pytest.mark.parametrize("style", [LINEAR, NATURAL, AKIMA])
def test_a_ramp_comes_out_as_it_went_in(style):
    y, x = np.mgrid[:150, :210]
    ramp = (50 + 0.3 * x - 0.2 * y).astype(np.float32)
    control = BackgroundControl(7, 5, style, statistic=Property.MEAN)
    got = measure_background(ramp, control, x0=-30, y0=4000).render().image
    assert np.abs(got - ramp).max() <= 1e-6 * np.abs(ramp).max()


def test_one_good_pixel_and_none():
    pixels = np.full((60, 60), np.nan, np.float32)
    control = BackgroundControl(6, 6, undersample=REDUCE)
    assert np.isnan(measure_background(pixels, control).render().image).all()
    pixels[17, 42] = 5
    np.testing.assert_array_equal(measure_background(pixels, control).render().image, 5)


def test_origin_and_boxes_do_not_change_values(image):
    control = BackgroundControl(6, 5)
    here = measure_background(image, control)
    there = measure_background(image, control, x0=1234, y0=-77)
    whole = there.render()
    np.testing.assert_array_equal(here.render().image, whole.image)
    assert whole.box == there.box == Box(1234, -77, 47, 31)
    np.testing.assert_array_equal(there.x_centres, here.x_centres + 1234)
    part = Box(1240, -60, 20, 9)
    drawn = there.render(part)
    np.testing.assert_array_equal(drawn.image, whole.image[part.slices_in(there.box)])
    with pytest.raises(GeometryError, match="box-outside"):
        there.render(Box(0, 0, 5, 5))


def test_adding_a_constant(image):
    background = measure_background(image, BackgroundControl(5, 5))
    before, same = background.values.copy(), background
    background += 2.5
    background -= 1.0
    assert background is same
    np.testing.assert_allclose(background.values, before + 1.5, rtol=1e-6)


def test_polynomial_in_place_of_interpolation(image):
    control = BackgroundControl(5, 4, approximation=ChebyshevControl(2))
    background = measure_background(image, control, x0=100, y0=50)
    part = Box(110, 60, 12, 7)
    drawn = background.render(part)
    assert drawn.box == part
    whole = background.approximate(ChebyshevControl(2)).render()
    np.testing.assert_array_equal(drawn.image, whole[10:17, 10:22])
    with pytest.raises(ConfigError, match="grid-undersampled"):
        background.render(part, upstream=True)
    upstream = background.render(part, LINEAR, THROW, upstream=True)
    assert upstream.box == Box(0, 0, 47, 31)
    np.testing.assert_array_equal(upstream.image, whole)


def test_fast_and_general_cell_statistics_agree(image):
    mask = (np.arange(image.size).reshape(image.shape) % 7 == 0).astype(np.int32) * 4
    cells = CellGrid.divide(Box(0, 0, 47, 31), 5, 4)
    control = StatisticsControl(n_sigma=2.5, and_mask=4)
    fast = measure_cells(image, mask, None, cells, Property.MEANCLIP, control)
    wide = image.astype(np.float64)
    general = measure_cells(wide, mask, None, cells, Property.MEANCLIP, control)
    for one, two in zip(fast, general, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12)


def test_errors(image):
    for shape in ((0, 3), (3, -1)):
        with pytest.raises(ConfigError, match="grid-empty"):
            BackgroundControl(*shape)
    with pytest.raises(InputError, match="image-shape"):
        measure_background(image[0], BackgroundControl(5, 4))
    with pytest.raises(ConfigError, match="cells-empty"):
        measure_background(image, BackgroundControl(48, 4))
    cells = CellGrid.divide(Box(0, 0, 40, 31), 5, 4)
    with pytest.raises(InputError, match="image-shape"):
        measure_cells(image, None, None, cells, Property.MEAN, StatisticsControl())
    box = Box(0, 0, 47, 31)
    for arguments in (
        {"values": np.zeros(5)},
        {"values": np.zeros((5, 5)), "variance": np.zeros((4, 5))},
        {"values": np.zeros((5, 5)), "control": BackgroundControl(5, 4)},
    ):
        with pytest.raises(ConfigError, match="grid-shape"):
            background_from_values(box, **arguments)
    with pytest.raises(ConfigError, match="cells-empty"):
        background_from_values(Box(0, 0, 4, 31), np.zeros((5, 5)))


def test_variances_beyond_float32_are_infinite():
    rng = np.random.default_rng(0)
    pixels = (1e25 * rng.normal(size=(20, 20))).astype(np.float32)
    background = measure_background(pixels, BackgroundControl(2, 2))
    assert np.isinf(background.variance).all()
    with pytest.raises(MatchError, match="chebyshev-no-cells"):
        background.approximate(ChebyshevControl(0))


def test_a_list_is_the_sum(image):
    first = measure_background(image, BackgroundControl(5, 5))
    second = background_from_values(first.box, np.full((2, 2), 3.0))
    third = measure_background(image, BackgroundControl(6, 6, approximation=ChebyshevControl(1)))
    backgrounds = BackgroundList([first, BackgroundElement(second, AKIMA, REDUCE)])
    backgrounds.append(third)
    assert len(backgrounds) == 3
    assert [element.background for element in backgrounds] == [first, second, third]
    assert backgrounds[1].undersample is REDUCE
    images = [element.render() for element in backgrounds]
    np.testing.assert_array_equal(images[1], 3)
    np.testing.assert_array_equal(backgrounds.render(), images[0] + images[1] + images[2])
    part = Box(3, 4, 10, 9)
    np.testing.assert_array_equal(
        backgrounds.render(part), backgrounds.render()[part.slices_in(first.box)]
    )
    np.testing.assert_array_equal(first.render().image, images[0])
    assert BackgroundList().render() is None
    with pytest.raises(ConfigError, match="background-list-box"):
        backgrounds.append(background_from_values(Box(0, 0, 9, 9), np.zeros((2, 2))))
