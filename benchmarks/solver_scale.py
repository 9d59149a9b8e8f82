"""Time, memory and accuracy of the joint solution against visits and superpixels.

Superpixel sums are made up, without pixels: skies as hard as real ones, a bump of scattered
light in every 25th visit, round footprints, noise that belongs to visits. Run

    python -m benchmarks.solver_scale --visits 25 50 --superpixels 60 125 [--plot growth.png]
    python -m benchmarks.solver_scale --pulls 50

Every case runs in a process of its own, so that its peak memory is its own. ``--pulls`` compares
the errors made on that many small tracts with those claimed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bgmatch_dask.background.hubs import choose_hubs, pairs_for_patch
from bgmatch_dask.background.offsets import at_superpixels
from bgmatch_dask.background.solution import Flag, Solution, SolveConfig
from bgmatch_dask.background.solve import solve_offsets
from bgmatch_dask.background.superpixels import SuperpixelSums
from bgmatch_dask.background.visits import Visit
from bgmatch_dask.geometry import Box, SuperpixelGrid

Array = NDArray[np.float64]
Plane = NDArray[np.bool_]
Pair = tuple[Visit, Visit]

BIN = 128
NOISE = 0.16  # Of the mean of one visit's superpixel, in counts.
_GAUSS = 0.5 / np.sqrt(3.0)  # Two points per axis average cubics exactly.


@dataclass(frozen=True)
class MadeUp(Mapping[Pair, SuperpixelSums]):
    """Superpixel sums of all hub − visit, computed when they are asked for."""

    seen: Mapping[Visit, Array]
    coverage: Mapping[Visit, Plane]
    pairs: tuple[Pair, ...]

    def __getitem__(self, pair: Pair) -> SuperpixelSums:
        """Return the sums of one pair."""
        hub, visit = pair
        n = np.where(self.coverage[hub] & self.coverage[visit], float(BIN * BIN), 0.0)
        zero, second = np.zeros_like(n), n * (BIN**2 - 1) / 12
        squares = n * np.maximum(n - 1, 0) * 2 * NOISE**2
        total = n * (self.seen[hub] - self.seen[visit])
        return SuperpixelSums(n, total, squares, zero, second, zero, second, n)

    def __contains__(self, pair: object) -> bool:
        """Return whether a pair was differenced."""
        return pair in self.pairs

    def __iter__(self) -> Iterator[Pair]:
        """Return the pairs in order."""
        return iter(self.pairs)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)


@dataclass(frozen=True)
class Tract:
    """A made-up tract: true skies, footprints and differences."""

    grid: SuperpixelGrid
    truth: dict[Visit, Array]
    differences: MadeUp
    footprints: dict[Visit, Plane]


def make_tract(n_visits: int, n: int, seed: int = 0) -> Tract:
    """Make a tract of ``n × n`` superpixels; visit 0 is the reference, 96 % of the tract."""
    rng = np.random.default_rng(seed)
    truth: dict[Visit, Array] = {v: _sky(rng, n, bump=v % 25 == 5) for v in range(n_visits)}
    y, x = np.mgrid[:n, :n]
    centres = rng.uniform(0.3 * n, 0.7 * n, (n_visits, 2))
    coverage: dict[Visit, Plane] = {
        v: np.hypot(x - cx, y - cy) < 0.55 * n for v, (cx, cy) in enumerate(centres)
    }
    coverage[0] = x >= 0.04 * n
    seen = {v: sky + rng.normal(0, NOISE, (n, n)) for v, sky in truth.items()}
    hubs = choose_hubs(coverage, tuple(range(n_visits)), 0)
    pairs = pairs_for_patch(hubs, range(n_visits))
    pairs = tuple(p for p in pairs if (coverage[p[0]] & coverage[p[1]]).any())
    grid = SuperpixelGrid(Box(0, 0, n * BIN, n * BIN), BIN, BIN)
    return Tract(grid, truth, MadeUp(seen, coverage, pairs), coverage)


def _sky(rng: np.random.Generator, n: int, *, bump: bool) -> Array:
    """Return the superpixel averages of one visit's sky."""
    gradient, curve = rng.uniform(-50, 50, 2), rng.uniform(-18, 18, 3)
    level, (cx, cy) = rng.uniform(240, 1180), rng.uniform(0.35 * n, 0.65 * n, 2)
    total = np.zeros((n, n))
    for dy in (-_GAUSS, _GAUSS):
        for dx in (-_GAUSS, _GAUSS):
            y, x = np.mgrid[:n, :n].astype(np.float64)
            py, px = y + dy, x + dx
            v, u = ((line + 0.5) / n * 2 - 1 for line in (py, px))
            total += level + gradient[0] * u + gradient[1] * v
            total += curve[0] * u * u + curve[1] * v * v + curve[2] * u * v
            if bump:
                radius = np.hypot(px - cx, py - cy) * BIN / 380
                total += 60 * np.exp(-0.5 * radius**2)
    return total / 4


@dataclass(frozen=True)
class Figures:
    """What came out of one case."""

    visits: int
    superpixels: int
    observations: int
    seconds: float
    cpu_seconds: float
    memory_gb: float
    error: float
    """Median over visits of the rms error over the noise."""
    worst: float
    """The same of the worst visit."""
    pull: float
    """Standard deviation of error over claimed sigma."""
    iterations: int
    pitch: int


def judge(tract: Tract, solution: Solution) -> tuple[Array, Array]:
    """Return every visit's rms error over the noise, and all pulls."""
    errors, pulls = [], []
    for visit, offset in solution.offsets.items():
        at = tract.differences.coverage[visit]
        error = (at_superpixels(offset) + tract.truth[visit] - tract.truth[0])[at]
        errors.append(np.sqrt(np.mean(error**2)) / NOISE)
        pulls.append(error / np.sqrt(offset.variance[at]))
    return np.array(errors), np.concatenate(pulls)


def measure(n_visits: int, n: int, seed: int = 0) -> Figures:
    """Solve one case."""
    tract = make_tract(n_visits, n, seed)
    begin, cpu = time.perf_counter(), time.process_time()
    with threadpool_limits(1):
        solution = solve_offsets(
            tract.differences, tract.differences.coverage, tract.grid, 0, SolveConfig()
        )
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    errors, pulls = judge(tract, solution)
    return Figures(
        n_visits,
        n,
        sum(p.n_superpixels for p in solution.pairs),
        seconds,
        cpu,
        memory,
        float(np.median(errors)),
        float(errors.max()),
        float(pulls.std()),
        solution.iterations,
        solution.pitch,
    )


def seconds_of(visits: int, superpixels: int) -> float:
    """Return the wall time of one solution."""
    return measure(visits, superpixels).seconds


def pulls(n_tracts: int) -> tuple[Array, Array]:
    """Return error over claimed sigma where visits are measured, and across gaps in them."""
    found: dict[Flag, list[Array]] = {Flag.MEASURED: [], Flag.INTERPOLATED: []}
    for seed in range(n_tracts):
        tract = with_gaps(make_tract(5, 8, seed), seed)
        with threadpool_limits(1):
            solution = solve_offsets(
                tract.differences, tract.differences.coverage, tract.grid, 0, SolveConfig()
            )
        for visit, offset in solution.offsets.items():
            error = at_superpixels(offset) + tract.truth[visit] - tract.truth[0]
            pull = error / np.sqrt(offset.variance)
            for flag, parts in found.items():
                parts.append(pull[tract.footprints[visit] & (offset.flags == flag)])
    return np.concatenate(found[Flag.MEASURED]), np.concatenate(found[Flag.INTERPOLATED])


def with_gaps(tract: Tract, seed: int, size: int = 2) -> Tract:
    """Return the tract with a square gap in every visit."""
    rng = np.random.default_rng(100 + seed)
    coverage = {v: plane.copy() for v, plane in tract.footprints.items()}
    for plane in coverage.values():
        y, x = rng.integers(1, len(plane) - size - 1, 2)
        plane[y : y + size, x : x + size] = False
    differences = MadeUp(tract.differences.seen, coverage, tract.differences.pairs)
    return Tract(tract.grid, tract.truth, differences, tract.footprints)


def draw(cases: Sequence[Figures], file: Path) -> None:
    """Draw time and memory against visits, one line per number of superpixels."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(7.0, 2.9), layout="constrained")
    axes = figure.subplots(1, 2)
    for n in sorted({c.superpixels for c in cases}):
        line = sorted((c for c in cases if c.superpixels == n), key=lambda c: c.visits)
        visits = [c.visits for c in line]
        axes[0].plot(visits, [c.cpu_seconds for c in line], "o-", label=f"{n}² superpixels")
        axes[1].plot(visits, [c.memory_gb for c in line], "o-")
    for ax, label, limit in ((axes[0], "processor time [s]", 300.0), (axes[1], "memory [GB]", 8.0)):
        ax.axhline(limit, color="0.6", ls=":")
        ax.set(xlabel="visits", ylabel=label, xscale="log", yscale="log")
        numbers = sorted({c.visits for c in cases})
        ax.set_xticks(numbers, [str(n) for n in numbers])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())
    axes[0].legend(frameon=False)
    figure.savefig(file, dpi=90)


def main() -> None:
    """Measure all cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, nargs="+", default=[25])
    parser.add_argument("--superpixels", type=int, nargs="+", default=[60])
    parser.add_argument("--plot", type=Path, help="PNG file of time and memory")
    parser.add_argument("--pulls", type=int, help="number of small tracts")
    parser.add_argument("--one", action="store_true", help="one case, as JSON")
    args = parser.parse_args()
    if args.pulls:
        measured, across = (float(part.std()) for part in pulls(args.pulls))
        print(f"pulls of {args.pulls} tracts: measured {measured:.3f}, interpolated {across:.3f}")
        return
    if args.one:
        print(json.dumps(asdict(measure(args.visits[0], args.superpixels[0]))))
        return
    print("visits superpixels observations time[s] cpu[s] memory[GB] error/noise worst pull")
    cases = []
    for n in args.superpixels:
        for n_visits in args.visits:
            cases.append(_in_own_process(n_visits, n))
            f = cases[-1]
            print(
                f"{f.visits:6d} {f.superpixels:8d}² {f.observations:12d} {f.seconds:7.1f} "
                f"{f.cpu_seconds:6.1f} {f.memory_gb:9.2f} {f.error:11.2f} {f.worst:6.2f} "
                f"{f.pull:5.2f}",
                flush=True,
            )
    if args.plot:
        draw(cases, args.plot)


def _in_own_process(n_visits: int, n: int) -> Figures:
    command = [sys.executable, "-m", "benchmarks.solver_scale", "--one"]
    case = ["--visits", str(n_visits), "--superpixels", str(n)]
    out = subprocess.run([*command, *case], check=True, capture_output=True, text=True)
    return Figures(**json.loads(out.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
