"""The planes of a stored coadd."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bgmatch_dask.maskplanes import NO_DATA

__all__ = ("COADD_PLANES",)

COADD_PLANES: Mapping[str, tuple[str, float | int]] = {
    "image": ("float32", np.nan),
    "variance": ("float32", np.nan),
    "mask": ("int32", NO_DATA),
    "nimage": ("int32", 0),
}
"""Array name to dtype and fill value."""
