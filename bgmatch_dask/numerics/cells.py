"""The cells of a box, and the statistics of their pixels.

Source: LSST ``afw`` ``Background.cc`` (geometry) and ``BackgroundMI.cc`` (statistics).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.errors import ConfigError, InputError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.statistics import Property, StatisticsControl, measure_statistics
from bgmatch_dask.numerics.superpixels import bin_statistics

__all__ = ("CellGrid", "measure_cells")


@dataclass(frozen=True, slots=True)
class CellGrid:
    """Cells of nearly equal size that divide a box; positions are relative to its first pixel."""

    x_edges: NDArray[np.int64]
    """Column edges, ``nx + 1`` values from 0 to the width."""
    y_edges: NDArray[np.int64]
    """Row edges, ``ny + 1`` values from 0 to the height."""

    @classmethod
    def divide(cls, box: Box, nx: int, ny: int) -> Self:
        """Divide a box into ``nx`` times ``ny`` cells whose sizes differ by one pixel at most.

        Raises
        ------
        ConfigError
            ``cells-empty`` when an axis has fewer pixels than cells.
        """
        if not (1 <= nx <= box.width and 1 <= ny <= box.height):
            raise ConfigError(
                "cells-empty",
                f"{nx} x {ny} cells do not fit into {box.width} x {box.height} pixels",
                fix="Use larger cells.",
            )
        return cls(_edges(box.width, nx), _edges(box.height, ny))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells, ``(ny, nx)``."""
        return (len(self.y_edges) - 1, len(self.x_edges) - 1)

    @property
    def x_centres(self) -> NDArray[np.float64]:
        """Mean column of the pixels of each cell, shape ``(nx,)``."""
        return _middles(self.x_edges)

    @property
    def y_centres(self) -> NDArray[np.float64]:
        """Mean row of the pixels of each cell, shape ``(ny,)``."""
        return _middles(self.y_edges)


def _edges(size: int, n: int) -> NDArray[np.int64]:
    ends = (np.arange(1, n + 1, dtype=np.int64) * size + n // 2) // n
    return np.concatenate(([0], np.minimum(ends, size)))


def _middles(edges: NDArray[np.int64]) -> NDArray[np.float64]:
    return (edges[:-1] + edges[1:]).astype(np.float64) * 0.5 - 0.5


def measure_cells(
    image: NDArray[np.number],
    mask: NDArray[np.integer] | None,
    variance: NDArray[np.floating] | None,
    cells: CellGrid,
    statistic: Property,
    control: StatisticsControl,
    *,
    upstream: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure one statistic in each cell.

    Parameters
    ----------
    image
        Shape ``(height, width)`` of the divided box; real or integer dtype.
    mask, variance
        Bit field and variance of the pixels, same shape, or None.
    cells
        Division of the image.
    statistic
        What to measure.
    control
        Selection, clipping and weights.
    upstream
        See `bgmatch_dask.numerics.statistics.measure_statistics`.

    Returns
    -------
    values, errors : ndarray of float64
        Value and its standard error, shape ``(ny, nx)``; NaN where undefined.

    Raises
    ------
    InputError
        Codes of `measure_statistics`; ``image-shape`` when the image does not fit the cells.
    """
    if image.shape != (cells.y_edges[-1], cells.x_edges[-1]):
        raise InputError(
            "image-shape",
            f"The image has shape {image.shape}, its cells divide "
            f"{(int(cells.y_edges[-1]), int(cells.x_edges[-1]))}",
        )
    if image.dtype == np.float32 and _is_plain_clipped_mean(statistic, control):
        return _clipped_means(image.astype(np.float32, copy=False), mask, cells, control)
    values, errors = np.empty((2, *cells.shape))
    for iy, ix in np.ndindex(cells.shape):
        part = (
            slice(cells.y_edges[iy], cells.y_edges[iy + 1]),
            slice(cells.x_edges[ix], cells.x_edges[ix + 1]),
        )
        measured = measure_statistics(
            image[part],
            None if mask is None else mask[part],
            None if variance is None else variance[part],
            control=control,
            upstream=upstream,
        )
        values[iy, ix] = measured.value(statistic)
        errors[iy, ix] = measured.error(statistic)
    return values, errors


def _is_plain_clipped_mean(statistic: Property, control: StatisticsControl) -> bool:
    plain = control.nan_safe and control.weighting == "none" and control.error == "sample"
    return plain and statistic is Property.MEANCLIP


def _clipped_means(
    image: NDArray[np.float32],
    mask: NDArray[np.integer] | None,
    cells: CellGrid,
    control: StatisticsControl,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure with the compiled kernel, which is much faster than a call per cell."""
    bins = bin_statistics(
        image,
        mask,
        control.and_mask,
        cells.x_edges,
        cells.y_edges,
        n_sigma=control.n_sigma,
        n_iter=control.n_iter,
    )
    mean_variance = np.full(cells.shape, np.nan)
    np.divide(bins.variance, bins.count, out=mean_variance, where=bins.count > 0)
    # Rounding may leave the variance of equal pixels a little below zero.
    return bins.mean, np.sqrt(np.maximum(mean_variance, 0.0))
