"""Throughput of the compiled kernels, against sep where it does the same work.

Run ``python benchmarks/kernels.py [--json FILE]``. Every figure of a table comes from one
process: medians of repeats that take turns, first on one thread, then on two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

# Read when numpy is imported: a second BLAS thread would spoil the one-thread figures.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.gridded import background_from_values
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.rendering import render_nodes
from bgmatch_dask.numerics.superpixels import (
    bin_difference_statistics,
    bin_moments,
    bin_statistics,
)

SIZE = 4100
BIN = 128
BAD = 1 << 5


@dataclass(frozen=True)
class Row:
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
class Result:
    """Throughput of one row."""

    name: str
    mpix_per_s: float
    mpix_per_s_two_threads: float | None
    baseline: str
    ratio: float | None
    target: float


# ------------------------------------------------------------------ superpixel statistics


def sky(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Make a noisy sky with 2 % of bright pixels and 3 % masked."""
    rng = np.random.default_rng(seed)
    image = rng.normal(200.0, 20.0, (SIZE, SIZE)).astype(np.float32)
    image[rng.random((SIZE, SIZE), np.float32) < 0.02] += np.float32(300.0)
    mask = (rng.random((SIZE, SIZE), np.float32) < 0.03).astype(np.int32) * np.int32(BAD)
    return image, mask


def statistics_rows() -> list[Row]:
    (a, mask_a), (b, mask_b) = sky(1), sky(2)
    edges = np.append(np.arange(0, SIZE, BIN), SIZE)
    bits = (BAD, edges, edges)
    mesh = "sep.Background mesh"
    rows = [
        Row("superpixel statistics", lambda: bin_statistics(a, mask_a, *bits), mesh, 2.5),
        Row(
            "superpixel statistics of a difference",
            lambda: bin_difference_statistics(a, mask_a, b, mask_b, *bits),
            mesh,
            2.0,
        ),
        Row("superpixel moments of positions", lambda: bin_moments((a,), (mask_a,), *bits)),
    ]
    sep = optional_sep()
    if sep is not None:
        bad = mask_a != 0
        rows.append(Row(mesh, lambda: sep.Background(a, mask=bad, bw=BIN, bh=BIN), threads=False))
    return rows


# ------------------------------------------------------------------ rendering


def rendering_rows() -> list[Row]:
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
        Row(f"AKIMA of {n} x {n} nodes", background.render, back, 1.0),
        Row(
            f"natural spline of {n} x {n} nodes",
            lambda: background.render(style=InterpStyle.NATURAL_SPLINE),
            back,
        ),
        Row(
            "AKIMA, written into an array",
            into_own_array,
            back,
        ),
        Row(
            "AKIMA of a patch in 320 x 320 nodes",
            lambda: render_nodes(tract_nodes, tract_nodes, tract, patch),
            back,
        ),
    ]
    sep = optional_sep()
    if sep is not None:
        mesh = sep.Background(sky(1)[0], bw=BIN, bh=BIN)
        rows.append(Row(back, mesh.back, threads=False))
    return rows


# ------------------------------------------------------------------ timing and tables


def optional_sep():  # noqa: ANN201
    try:
        import sep
    except ImportError as error:
        print(f"Rows of sep are skipped: {error}. Install the extra `bench` for them.")
        return None
    return sep


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def on_two_threads(pool: ThreadPoolExecutor, call: Callable[[], object]) -> float:
    """Return the seconds per call when two threads make four calls."""
    start = time.perf_counter()
    for future in [pool.submit(call) for _ in range(4)]:
        future.result()
    return (time.perf_counter() - start) / 4


def measure(rows: list[Row], repeats: int) -> list[Result]:
    """Time all rows in turns, so that whatever else the machine does hits them alike."""
    for row in rows:
        row.call()
    one = {row.name: [] for row in rows}
    two = {row.name: [] for row in rows if row.threads}
    with ThreadPoolExecutor(2) as pool:
        for _ in range(repeats):
            for row in rows:
                one[row.name].append(timed(row.call))
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            for row in rows:
                if row.threads:
                    two[row.name].append(on_two_threads(pool, row.call))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if two and cpu < 1.8 * wall:
        print(f"The machine is busy: two threads got {cpu / wall:.2f} processors, not 2.")
    seconds = {name: statistics.median(times) for name, times in one.items()}
    return [
        Result(
            row.name,
            throughput(seconds[row.name]),
            throughput(statistics.median(two[row.name])) if row.threads else None,
            row.baseline,
            seconds[row.baseline] / seconds[row.name] if row.baseline in seconds else None,
            row.target,
        )
        for row in rows
    ]


def throughput(seconds: float) -> float:
    return SIZE * SIZE / seconds / 1e6


def show(title: str, results: list[Result]) -> None:
    table = Table("", "Mpix/s", "two threads", "gain", "ratio", "target", title=title)
    for r in results:
        two = r.mpix_per_s_two_threads
        table.add_row(
            r.name,
            f"{r.mpix_per_s:.0f}",
            "" if two is None else f"{two:.0f}",
            "" if two is None else f"{two / r.mpix_per_s:.2f} ×",
            "" if r.ratio is None else f"{r.ratio:.2f} × {r.baseline}",
            f"{r.target:g} ×" if r.target else "",
        )
    Console(width=130).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--repeats", type=int, default=7, help="repeats of each row (default 7)")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    tables = {
        "statistics": measure(statistics_rows(), options.repeats),
        "rendering": measure(rendering_rows(), options.repeats),
    }
    for title, results in tables.items():
        if results:
            show(f"{title}, {SIZE}² float32", results)
    if options.json:
        machine = {"cpus": os.cpu_count(), "processor": platform.machine(), "load": load}
        figures = {k: [asdict(r) for r in results] for k, results in tables.items()}
        options.json.write_text(json.dumps({"machine": machine, "size": SIZE, **figures}, indent=1))


if __name__ == "__main__":
    main()
