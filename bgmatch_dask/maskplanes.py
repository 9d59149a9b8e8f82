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

__all__ = (
    "CLIPPED",
    "DETECTIONS",
    "MASK_PLANES",
    "NO_DATA",
    "OTHER",
    "bits_of",
    "byte_tables",
)

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


def byte_tables(planes: Mapping[str, int]) -> NDArray[np.int32]:
    """Return the bits of the store for each value of each byte of a file's mask.

    Set bits that no plane of the file names, and planes that the store lacks, are ``OTHER``.
    Byte by byte is a quarter of the work of a shift and a mask for each plane.

    Parameters
    ----------
    planes
        The file's own planes: name to bit number, 0 to 31.

    Returns
    -------
    ndarray of int32
        Shape ``(4, 256)``, the least significant byte first.
    """
    return np.stack([_table(planes, first) for first in range(0, 32, 8)])


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
