"""The figure of per-warp matches."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from matplotlib.image import imread

from bgmatch_dask.background.per_warp import PerWarpConfig, match_warp
from bgmatch_dask.geometry import Box
from bgmatch_dask.report.warp_fits import MOST_ROWS, warp_fits_figure
from bgmatch_dask.warps.warp import Warp


def row(label, **options):
    random = np.random.default_rng(4)
    images = random.normal(0, 1, (2, 90, 120)).astype(np.float32)
    images[1, :, :50] = np.nan
    planes = (np.ones((90, 120), np.float32), np.zeros((90, 120), np.int32))
    reference, science = (Warp(Box(5, 7, 120, 90), image, *planes) for image in images)
    match = match_warp(reference, science, PerWarpConfig(bin_size=20, **options))
    return label, match.model, match.figures


def pixels(data: bytes) -> np.ndarray:
    return imread(io.BytesIO(data))


def test_a_row_for_each_match():
    one = pixels(warp_fits_figure([row("first")], "nJy"))
    two = pixels(warp_fits_figure([row("first"), row("$x_{$", use_polynomial=True)], "nJy"))
    assert two.shape[0] > 1.8 * one.shape[0]
    assert one.std() > 0.05
    many = pixels(warp_fits_figure([row("first")] * (MOST_ROWS + 1), "nJy"))
    assert many.shape[0] < (MOST_ROWS + 0.5) * one.shape[0]


def test_no_residual_at_all_can_be_drawn():
    label, model, figures = row("nothing")
    empty = replace(figures, residuals=np.full_like(figures.residuals, np.nan))
    assert pixels(warp_fits_figure([(label, model, empty)], "")).shape[2] == 3
