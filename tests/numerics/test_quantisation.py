import numpy as np
import pytest
from numcodecs import Blosc

from bgmatch_dask.numerics.quantisation import power_step, rounded_to_bits, rounded_to_step


def _image(level, sigma):
    rng = np.random.default_rng(4)
    return (level + rng.normal(0.0, sigma, (400, 500))).astype(np.float32)


@pytest.mark.parametrize(("sigma", "share"), [(16.0, 0.0625), (23.7, 0.06), (3e-5, 0.2)])
def test_a_step_is_the_power_of_two_below_the_share(sigma, share):
    step = power_step(sigma, share)
    assert 0.5 * share * sigma < step <= share * sigma
    assert np.log2(step) == round(np.log2(step))


@pytest.mark.parametrize("sigma", [0.0, float("nan"), float("inf")])
def test_without_noise_there_is_no_step(sigma):
    assert power_step(sigma, 0.06) == 0.0


@pytest.mark.parametrize("share", [0.03, 0.0625, 0.25])
def test_the_added_noise_is_that_of_the_step_and_has_no_bias(share):
    image = _image(240.0, 16.0)
    step = power_step(16.0, share)
    added = rounded_to_step(image, step).astype(np.float64) - image
    assert np.abs(added).max() <= step / 2
    assert added.var() == pytest.approx(step**2 / 12, rel=0.02)
    assert abs(added.mean()) < 5 * step / np.sqrt(12 * image.size)
    assert added.var() <= share**2 / 12 * 16.0**2 * 1.01


def test_steps_compress_more_than_twice_as_well():
    codec = Blosc(cname="lz4", clevel=1, shuffle=Blosc.SHUFFLE)
    image = _image(240.0, 16.0)
    rounded = rounded_to_step(image, power_step(16.0, 0.0625))
    assert len(codec.encode(rounded)) < 0.5 * len(codec.encode(image))


def test_what_is_no_number_stays():
    image = _image(1.0, 1.0)
    image[3, 4], image[5, 6] = np.nan, np.inf
    found = rounded_to_step(image, 0.25)
    assert np.isnan(found[3, 4])
    assert found[5, 6] == np.inf
    bits = rounded_to_bits(image, 0.01)
    assert np.isnan(bits[3, 4])
    assert bits[5, 6] == np.inf


@pytest.mark.parametrize("share", [0.3, 0.0036, 1e-5, 1e-9])
def test_relative_errors_stay_below_the_share(share):
    values = np.exp(np.random.default_rng(2).uniform(-20, 20, 10_000)).astype(np.float32)
    error = np.abs(rounded_to_bits(values, share).astype(np.float64) / values - 1)
    assert error.max() <= share
    assert share < 1e-7 or error.max() > share / 8
