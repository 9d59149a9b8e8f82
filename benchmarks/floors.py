"""The least that any program must do with the same bytes on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ("decode_floor", "decode_one", "zarr_read_floor", "zarr_write_floor")

_PLANES = ("image", "variance", "mask")


def decode_one(path: str) -> int:
    """Read the three planes of one file, as a first script with astropy would."""
    from astropy.io import fits

    with fits.open(path, memmap=False) as hdus:
        return sum(int(np.asarray(hdus[n].data).nbytes) for n in ("IMAGE", "MASK", "VARIANCE"))


def decode_floor(pool: Executor, files: Sequence[str], workers: int, repeats: int) -> list[float]:
    """Return the wall times of decoding all files with astropy on some processes [s]."""
    list(pool.map(decode_one, files[: 2 * workers]))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        list(pool.map(decode_one, files))
        times.append(time.perf_counter() - start)
    return times


def _read(store: str, planes: Sequence[str], places: tuple[int, int]) -> float:
    from bgmatch_dask.store import open_store

    opened = open_store(store)
    box = opened.spec.geometry.patches.plane_box(places[1])
    start = time.perf_counter()
    for plane in planes:
        opened.read(plane, *places, box)
    return time.perf_counter() - start


def zarr_read_floor(
    pool: Executor, store: str, units: Sequence[tuple[int, int]], planes: Sequence[str]
) -> float:
    """Return the wall time of reading planes of (visit, patch) units, and nothing else [s]."""
    fixed = repeat(store), repeat(planes)
    list(pool.map(_read, *fixed, units))
    start = time.perf_counter()
    list(pool.map(_read, *fixed, units))
    return time.perf_counter() - start


def _write(folder: str, number: int, arrays: Sequence[NDArray[np.generic]], chunk: int) -> None:
    import zarr

    from bgmatch_dask.store.layout import chunk_length, codecs

    for name, values in zip(_PLANES, arrays, strict=False):
        lengths = tuple(chunk_length(n, chunk) for n in values.shape)
        array = zarr.create_array(
            str(Path(folder) / f"{name}-{number}.zarr"),
            shape=values.shape,
            dtype=values.dtype,
            chunks=lengths,
            shards=values.shape,
            compressors=codecs(),
            overwrite=True,
        )
        array[:] = values


def _write_like(store: str, folder: str, number: int, place: tuple[int, int]) -> float:
    """Write the planes of one unit and return only the seconds of writing."""
    from bgmatch_dask.store import open_store

    opened = open_store(store)
    box = opened.spec.geometry.patches.plane_box(place[1])
    arrays = [opened.read(plane, *place, box) for plane in _PLANES]
    start = time.perf_counter()
    _write(folder, number, arrays, opened.spec.chunk)
    return time.perf_counter() - start


def zarr_write_floor(
    pool: Executor, store: str, folder: Path, units: Sequence[tuple[int, int]], workers: int
) -> float:
    """Return the wall time of writing three planes per unit, shared by the workers [s]."""
    fixed = repeat(store), repeat(str(folder))
    list(pool.map(_write_like, *fixed, range(2 * workers), units))
    return sum(pool.map(_write_like, *fixed, range(len(units)), units)) / workers
