"""The mask planes of the store, and how the planes of a file map onto them.

Files number their planes in any order (``MP_<NAME>`` cards give the bit), so bits are
re-mapped once, at ingest, to the fixed planes below. The first eleven are the default
planes of LSST ``afw``; a plane that has no place here sets `OTHER`.
"""

from __future__ import annotations

import sys
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
    mask = mask.astype(mask.dtype.newbyteorder("="), copy=False)
    size = mask.dtype.itemsize
    # Byte by byte through tables: a quarter of the time of a shift and a mask for each plane.
    parts = np.ascontiguousarray(mask).view(np.uint8).reshape(*mask.shape, size)
    out = np.zeros(mask.shape, np.int32)
    for index in range(size):
        first = 8 * (index if sys.byteorder == "little" else size - 1 - index)
        part = parts[..., index]
        if part.any():
            out |= _table(planes, first)[part]
    return out


def _table(planes: Mapping[str, int], first: int) -> NDArray[np.int32]:
    """Return the bits of the store for each value of the byte that begins at a bit."""
    targets = dict.fromkeys(range(first, first + 8), 0)
    for name, bit in planes.items():
        if bit in targets:
            targets[bit] |= 1 << MASK_PLANES.get(name, MASK_PLANES["OTHER"])
    table = np.zeros(256, np.int32)
    values = np.arange(256)
    for bit, bits in targets.items():
        table[(values >> (bit - first)) & 1 == 1] |= np.int32(bits or OTHER)
    return table
