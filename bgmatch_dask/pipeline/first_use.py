"""What later stages need, compiled on a new machine while the first one runs."""

from __future__ import annotations

import numpy as np

from bgmatch_dask.background.outliers import CELL, outlier_footprints
from bgmatch_dask.numerics.local_median import SQUARE
from bgmatch_dask.numerics.stacking import add_weighted, empty_sums

__all__ = ("compile_later_stages",)


def compile_later_stages() -> None:
    """Call what takes longest to compile on next to nothing: first the differences, then the mean.

    The first stage is for the workers, and the solution for the process that asks for it.
    """
    side = CELL * SQUARE
    nothing = np.zeros((side, side), np.float32)
    outlier_footprints(nothing, nothing, np.ones((side, side), bool))
    add_weighted([], 0, empty_sums((0, 0)), fresh=True)
