"""What codecs and chunks cost and save on one warp, and what noise rounding adds."""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import repeat
from benchmarks.results import Check, Figure, Table, spread
from bgmatch_dask.numerics.quantisation import power_step, rounded_to_bits, rounded_to_step
from bgmatch_dask.store.layout import chunk_length, codecs
from bgmatch_dask.warps.lsst import read_lsst_warp
from bgmatch_dask.warps.warp import Warp

__all__ = ("measure_storage",)

_STEPS = (1 / 16, 1 / 4)
_CHUNK = 1000
Planes = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Row:
    """One way to store a warp."""

    name: str
    planes: Planes
    codecs: Sequence[Any]
    chunks: tuple[int, int]
    added: float = 0.0
    """Noise that rounding adds, in units of the sky noise."""
    bound: float = 0.0
    """What is promised: a step over √12."""


def measure_storage(file: str, work: Path, repeats: int) -> tuple[list[Figure], Table, list[Check]]:
    """Write and read the planes of one warp in several ways.

    Parameters
    ----------
    file
        A warp.
    work
        Folder for the arrays.
    repeats
        Repeats of each measurement.
    """
    rows, taken = _rows(read_lsst_warp(file)), []
    figures, checks = [], []
    for row in rows:
        size, write, read = _measure(row, work / "storage.zarr", repeats)
        pixels = sum(plane.nbytes for plane in row.planes.values()) / 1e6
        taken.append((pixels / write, pixels / read, pixels / size))
        if row.bound:
            checks.append(
                Check(f"Noise added by {row.name}, over its bound", row.added / row.bound, 1.05)
            )
    plain = taken[0]
    for name, k, better in (("write", 0, "higher"), ("read", 1, "higher"), ("ratio", 2, "higher")):
        unit = "x" if name == "ratio" else "MB/s"
        figures.append(spread(f"storage.{name}", [plain[k]], unit, better, relative=k == 2))
    shown = tuple(
        (r.name, *t, 100 * r.added if r.bound else None, 100 * r.bound if r.bound else None)
        for r, t in zip(rows, taken, strict=True)
    )
    table = Table(
        "Ways to store a warp, one thread",
        ("", "write MB/s", "read MB/s", "smaller ×", "noise added [% of σ]", "bound [% of σ]"),
        shown,
        "Image, variance and mask, one Zarr shard each, MB of pixels. Bound: step over √12, in "
        "units of the sky's σ; steps are rounded down to powers of two. A noise of 2 % of σ makes "
        "the sky 0.02 % noisier.",
    )
    return figures, table, checks


def _rows(warp: Warp) -> list[_Row]:
    from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

    planes: Planes = {"image": warp.image, "variance": warp.variance, "mask": warp.mask}
    height, width = warp.image.shape
    fair = chunk_length(height, _CHUNK), chunk_length(width, _CHUNK)
    half = chunk_length(height, _CHUNK // 2), chunk_length(width, _CHUNK // 2)
    crc = Crc32cCodec()
    zstd = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
    bits = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
    rows = [
        _Row("default: lz4, bytes shuffled, checksum", planes, codecs(), fair),
        _Row("no codec", planes, (), fair),
        _Row("checksum alone", planes, (crc,), fair),
        _Row("lz4, bits shuffled, checksum", planes, (bits, crc), fair),
        _Row("zstd 1, bits shuffled, checksum", planes, (zstd, crc), fair),
        _Row("zstd 1 without shuffle, own checksum", planes, (ZstdCodec(level=1),), fair),
        _Row(f"default, chunks of {half[0]} × {half[1]} px", planes, codecs(), half),
        _Row("default, one chunk per plane", planes, codecs(), (height, width)),
    ]
    return rows + [_stepped(planes, share, fair) for share in _STEPS]


def _stepped(planes: Planes, share: float, chunks: tuple[int, int]) -> _Row:
    """Return the warp as ``store.noise_step`` stores it."""
    image, variance = planes["image"], planes["variance"]
    good = np.isfinite(image)
    sigma = float(np.sqrt(np.median(variance[good])))
    step = power_step(sigma, share)
    rounded = rounded_to_step(image, step)
    added = float(np.std((rounded.astype(np.float64) - image)[good])) / sigma
    bits = rounded_to_bits(variance + np.float32(step**2 / 12), share**2)
    stored = planes | {"image": rounded, "variance": bits}
    name = f"default, noise_step {share:g}"
    return _Row(name, stored, codecs(), chunks, added, share / math.sqrt(12))


def _measure(row: _Row, folder: Path, repeats: int) -> tuple[float, float, float]:
    """Return MB on disk, and the median seconds of writing and reading."""
    import zarr

    def write() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for name, values in row.planes.items():
            array = zarr.create_array(
                str(folder / name),
                shape=values.shape,
                dtype=values.dtype,
                chunks=row.chunks,
                shards=values.shape,
                compressors=row.codecs,
                fill_value=0,
            )
            array[:] = values

    def read() -> None:
        for name in row.planes:
            zarr.open_array(str(folder / name), mode="r")[:]

    writes, reads = repeat(write, repeats), repeat(read, repeats)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    shutil.rmtree(folder)
    return size, statistics.median(writes), statistics.median(reads)
