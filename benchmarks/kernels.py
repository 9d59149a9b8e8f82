"""Part `kernels`: throughput of the compiled kernels, beside sep where it does the same work."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import seconds
from benchmarks.progress import Progress
from benchmarks.results import Cell, Check, Figure, PartResult, Table
from benchmarks.sizes import Size
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.gridded import background_from_values
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.rendering import render_nodes
from bgmatch_dask.numerics.superpixels import (
    bin_difference_statistics,
    bin_moments,
    bin_statistics,
)

__all__ = ("run",)

SIZE = 4100
BIN = 128
BAD = 1 << 5


@dataclass(frozen=True)
class _Row:
    """One kernel to time."""

    name: str
    call: Callable[[], object]
    baseline: str = ""
    """Row to compare with: its throughput is 1."""
    target: float = 0.0
    """Ratio to the baseline that we hold ourselves to."""
    threads: bool = True
    """Whether two threads are tried; sep holds the GIL."""


@dataclass(frozen=True)
class _Result:
    """Throughput of one row."""

    name: str
    mpix_per_s: float
    mpix_per_s_two_threads: float | None
    baseline: str
    ratio: float | None
    target: float


# ------------------------------------------------------------------ superpixel statistics


def _sky(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Make a noisy sky with 2 % of bright pixels and 3 % masked."""
    rng = np.random.default_rng(seed)
    image = rng.normal(200.0, 20.0, (SIZE, SIZE)).astype(np.float32)
    image[rng.random((SIZE, SIZE), np.float32) < 0.02] += np.float32(300.0)
    mask = (rng.random((SIZE, SIZE), np.float32) < 0.03).astype(np.int32) * np.int32(BAD)
    return image, mask


def _statistics_rows() -> list[_Row]:
    """Return the kernels that measure superpixels."""
    (a, mask_a), (b, mask_b) = _sky(1), _sky(2)
    edges = np.append(np.arange(0, SIZE, BIN), SIZE)
    bits = (BAD, edges, edges)
    mesh = "sep.Background mesh"
    rows = [
        _Row("superpixel statistics", lambda: bin_statistics(a, mask_a, *bits), mesh, 2.5),
        _Row(
            "superpixel statistics of a difference",
            lambda: bin_difference_statistics(a, mask_a, b, mask_b, *bits),
            mesh,
            2.0,
        ),
        _Row("superpixel moments of positions", lambda: bin_moments((a,), (mask_a,), *bits)),
    ]
    sep = _sep()
    if sep is not None:
        bad = mask_a != 0
        rows.append(_Row(mesh, lambda: sep.Background(a, mask=bad, bw=BIN, bh=BIN), threads=False))
    return rows


# ------------------------------------------------------------------ rendering


def _rendering_rows() -> list[_Row]:
    """Return the kernels that draw backgrounds."""
    rng = np.random.default_rng(3)
    box = Box(0, 0, SIZE, SIZE)
    n = -(-SIZE // BIN)
    background = background_from_values(box, rng.normal(200.0, 1.0, (n, n)))
    tract_nodes = BIN * np.arange(320) + 0.5 * BIN - 0.5
    tract = rng.normal(200.0, 1.0, (320, 320))
    patch = Box(16000, 12000, SIZE, SIZE)
    own = threading.local()

    def into_own_array() -> None:
        """Draw into an array that the thread keeps: no page faults of fresh memory."""
        if not hasattr(own, "out"):
            own.out = np.empty(box.shape, np.float32)
        background.render(out=own.out)

    back = "sep.Background.back"
    rows = [
        _Row(f"AKIMA of {n} x {n} nodes", background.render, back, 1.0),
        _Row(
            f"natural spline of {n} x {n} nodes",
            lambda: background.render(style=InterpStyle.NATURAL_SPLINE),
            back,
        ),
        _Row(
            "AKIMA, written into an array",
            into_own_array,
            back,
        ),
        _Row(
            "AKIMA of a patch in 320 x 320 nodes",
            lambda: render_nodes(tract_nodes, tract_nodes, tract, patch),
            back,
        ),
    ]
    sep = _sep()
    if sep is not None:
        mesh = sep.Background(_sky(1)[0], bw=BIN, bh=BIN)
        rows.append(_Row(back, mesh.back, threads=False))
    return rows


# ------------------------------------------------------------------ timing and tables


def run(size: Size, work: Path, progress: Progress) -> PartResult:
    """Time the kernels on one and on two threads."""
    del work
    repeats = 2 * size.repeats + 1
    progress.expect(2)
    tables = {}
    for title, rows in (
        ("Superpixel statistics", _statistics_rows),
        ("Drawing of backgrounds", _rendering_rows),
    ):
        progress.step(title.lower())
        tables[title] = _measure(rows(), repeats)
    results = [result for part in tables.values() for result in part]
    skipped = {} if _sep() is not None else {"sep": "not installed; the extra `bench` has it"}
    return PartResult(
        "kernels",
        "Compiled kernels",
        f"Single kernels on {SIZE} × {SIZE} float32 pixels in one process, medians of {repeats} "
        "repeats that take turns, on one thread and on two, beside sep (C) for the same work.",
        tuple(_figure(result) for result in results),
        tuple(_table(title, part) for title, part in tables.items()),
        checks=tuple(
            Check(f"{r.name} over {r.baseline}", r.ratio, r.target, at_most=False)
            for r in results
            if r.ratio is not None and r.target
        ),
        skipped=skipped,
    )


def _sep() -> Any:  # noqa: ANN401
    try:
        return import_module("sep")
    except ImportError:
        return None


def _on_two_threads(pool: ThreadPoolExecutor, call: Callable[[], object]) -> float:
    """Return the seconds per call when two threads make four calls."""
    start = time.perf_counter()
    for future in [pool.submit(call) for _ in range(4)]:
        future.result()
    return (time.perf_counter() - start) / 4


def _measure(rows: list[_Row], repeats: int) -> list[_Result]:
    """Time all rows in turns, so that whatever else the machine does hits them alike."""
    for row in rows:
        row.call()
    one: dict[str, list[float]] = {row.name: [] for row in rows}
    two: dict[str, list[float]] = {row.name: [] for row in rows if row.threads}
    with ThreadPoolExecutor(2) as pool:
        for _ in range(repeats):
            for row in rows:
                one[row.name].append(seconds(row.call))
        for _ in range(repeats):
            for row in rows:
                if row.threads:
                    two[row.name].append(_on_two_threads(pool, row.call))
    taken = {name: statistics.median(times) for name, times in one.items()}
    return [
        _Result(
            row.name,
            _throughput(taken[row.name]),
            _throughput(statistics.median(two[row.name])) if row.threads else None,
            row.baseline,
            taken[row.baseline] / taken[row.name] if row.baseline in taken else None,
            row.target,
        )
        for row in rows
    ]


def _throughput(taken: float) -> float:
    return SIZE * SIZE / taken / 1e6


def _figure(result: _Result) -> Figure:
    key = f"kernels.{result.name}"
    if result.ratio is not None:
        return Figure(key, result.ratio, "x", "higher", result.ratio, result.ratio, relative=True)
    rate = result.mpix_per_s
    return Figure(key, rate, "Mpix/s", "higher", rate, rate)


def _table(title: str, results: list[_Result]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            r.name,
            r.mpix_per_s,
            r.mpix_per_s_two_threads,
            r.mpix_per_s_two_threads and r.mpix_per_s_two_threads / r.mpix_per_s,
            r.ratio,
            r.baseline if r.ratio is not None else "",
        )
        for r in results
    ]
    columns = ("kernel", "Mpix/s", "on two threads", "gain ×", "ratio ×", "to")
    return Table(title, columns, tuple(rows))
