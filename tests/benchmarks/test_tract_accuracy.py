"""The figures of the accuracy benchmark, where they are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.tract_accuracy import measure_accuracy, tract_config
from bgmatch_dask.warps.simulation import true_diffuse, true_sky
from bgmatch_dask.warps.simulation.truth import draw_truth


@pytest.fixture(scope="module")
def truth():
    return draw_truth(tract_config(patch_size=90))


def test_perfect_corrections_leave_nothing(truth):
    reference = truth.best_reference

    def perfect(visit, box):
        return true_sky(truth, reference, box) - true_sky(truth, visit, box)

    found = measure_accuracy(truth, perfect)
    assert found.pairs == 27
    assert found.pair_rms_max < 1e-3
    # What is left is the slope of the reference's own sky from pixel to pixel.
    assert found.seam_rms < 0.1
    assert found.diffuse_kept == pytest.approx(1.0, abs=0.01)


def test_no_correction_and_a_subtracted_sky_are_seen_as_what_they_are(truth):
    nothing = measure_accuracy(truth, lambda _visit, box: np.zeros(box.shape))
    assert nothing.pair_rms > 100
    assert nothing.seam_rms > 10

    def greedy(visit, box):
        return -true_sky(truth, visit, box) - 0.7 * true_diffuse(truth, box)

    assert measure_accuracy(truth, greedy).diffuse_kept == pytest.approx(0.3, abs=1e-6)


def test_steps_at_patch_borders_are_seen(truth):
    def stepped(visit, box):
        inner = truth.config.patch_size
        x = np.arange(box.x0, box.x1)
        return -true_sky(truth, visit, box) + 2.0 * (x // inner)

    # A step of two across the borders along x, none across those along y.
    assert measure_accuracy(truth, stepped).patch_step == pytest.approx(np.sqrt(2.0), rel=0.1)
