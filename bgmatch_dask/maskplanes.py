"""The mask planes of the store, and how the planes of a file map onto them.

Files number their planes in any order (``MP_<NAME>`` cards give the bit), so bits are
re-mapped once, at ingest, to the fixed planes below. The first eleven are the default
planes of LSST ``afw``; a plane that has no place here sets `OTHER`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.errors import ConfigError

__all__ = ("CLIPPED", "DETECTIONS", "MASK_PLANES", "NO_DATA", "OTHER", "bits_of", "remap_mask")

MASK_PLANES: Mapping[str, int] = {
    "BAD": 0,
    "SAT": 1,
    "INTRP": 2,
    "CR": 3,
    "EDGE": 4,
    "DETECTED": 5,
    "DETECTED_NEGATIVE": 6,
    "SUSPECT": 7,
    "NO_DATA": 8,
    "VIGNETTED": 9,
    "STREAK": 10,
    "CROSSTALK": 11,
    "CLIPPED": 12,
    "REJECTED": 13,
    "SENSOR_EDGE": 14,
    "INEXACT_PSF": 15,
    "UNMASKEDNAN": 16,
    "SPIKE": 17,
    "OTHER": 30,
}
"""Name to bit number of every plane that the store keeps."""

DETECTIONS = ("DETECTED", "DETECTED_NEGATIVE")
"""Planes of what a detection found."""

CLIPPED = 1 << MASK_PLANES["CLIPPED"]
NO_DATA = 1 << MASK_PLANES["NO_DATA"]
OTHER = 1 << MASK_PLANES["OTHER"]


def bits_of(names: Iterable[str]) -> int:
    """Return the bit mask of the named planes.

    Parameters
    ----------
    names
        Plane names, e.g. ``("SAT", "NO_DATA")``.

    Returns
    -------
    int
        OR of ``1 << bit`` over the names.

    Raises
    ------
    ConfigError
        ``mask-plane-unknown`` when a name is not one of `MASK_PLANES`.
    """
    value = 0
    for name in names:
        if name not in MASK_PLANES:
            raise ConfigError(
                "mask-plane-unknown",
                f"There is no mask plane {name!r}",
                fix=f"Known planes: {', '.join(MASK_PLANES)}.",
            )
        value |= 1 << MASK_PLANES[name]
    return value


def remap_mask(mask: NDArray[np.integer], planes: Mapping[str, int]) -> NDArray[np.int32]:
    """Re-map the bits of a file's mask to the planes of the store.

    Parameters
    ----------
    mask
        Bit field of the file, any integer dtype, any shape.
    planes
        The file's own planes: name to bit number, 0 to 63.

    Returns
    -------
    ndarray of int32
        Same shape; bits as in `MASK_PLANES`, unknown set bits as ``OTHER``.
    """
    # Unsigned of the same size first: a sign bit must not smear over the bits above it.
    wide = mask.astype(f"u{mask.dtype.itemsize}", copy=False).astype(np.uint64, copy=False)
    out = np.zeros(wide.shape, np.int32)
    if not wide.any():
        return out
    known = 0
    for name, bit in planes.items():
        known |= 1 << bit
        target = MASK_PLANES.get(name, MASK_PLANES["OTHER"])
        out |= ((wide >> np.uint64(bit)) & np.uint64(1)).astype(np.int32) << np.int32(target)
    out[(wide & np.uint64(~known & (2**64 - 1))) != 0] |= np.int32(OTHER)
    return out
