"""Accuracy of background matching on a simulated tract, for us and for anyone else.

The tract is as hard as that of the comparison with the peers: 3×3 patches, 3102² px, 8 visits,
direct warps whose PSFs differ, skies of 240 to 1180 with gradients, quadratics and scattered
light, an unmasked trail, detector gaps. Whoever gives one correction per visit, an image that is
*added*, is measured in the same way from the truth, without noise:

* ``pair_rms``: rms over their common pixels of the difference of two corrected backgrounds;
  median and largest of all pairs that overlap;
* ``level_error``: the mean of that difference, its absolute value; median of all pairs;
* ``seam_rms``: rms step of the mean coadd's background wherever the set of visits changes;
* ``diffuse_kept``: share of the diffuse light in the mean coadd, by regression with a free
  quadratic;
* ``patch_step``: rms jump of a corrected visit across the borders of the inner boxes, less its
  own slope.

Run ``python -m benchmarks.tract_accuracy [FOLDER] [--set match.difference=pixel]``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.offsets import render
from bgmatch_dask.config import load_config
from bgmatch_dask.geometry import Box
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.results import load_offset
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.store import open_store
from bgmatch_dask.warps.simulation import (
    SimulationConfig,
    SimulationTruth,
    load_truth,
    simulate_tract,
    true_diffuse,
    true_sky,
)

Image = NDArray[np.float64]
Correction = Callable[[int, Box], Image]
"""Gives what is added to a visit on a box of tract pixels."""

PATCH = 1034
"""Inner size of a patch: three of them are as near to 3100 px as whole patches come."""


@dataclass(frozen=True)
class Accuracy:
    """How well the backgrounds of a tract agree, in the unit of the image; see the module."""

    pair_rms: float
    pair_rms_max: float
    level_error: float
    seam_rms: float
    seam_p95: float
    seam_max: float
    diffuse_kept: float
    patch_step: float
    pairs: int


def tract_config(*, seed: int = 42, patch_size: int = PATCH) -> SimulationConfig:
    """Return the tract; smaller patches make a smaller one of the same kind."""
    return SimulationConfig(patch_size=patch_size, pointings="broad", seed=seed)


def make_tract(folder: Path, config: SimulationConfig | None = None, *, workers: int = 2) -> Path:
    """Simulate the tract, unless it is there; return the folder of its warps."""
    made = simulate_tract(folder, config or tract_config(), workers=workers)
    return made.warps_dir


def match_tract(
    warps: Path, store: Path, overrides: Sequence[str] = ()
) -> tuple[Correction, dict[str, float]]:
    """Match the tract with this program; return the corrections and the time of each stage [s]."""
    settings = load_config(
        overrides=overrides,
        values={"inputs": {"paths": [str(warps)]}, "store": {"url": str(store)}},
    )
    plan = make_plan(settings)
    summary = run_tract(plan)
    reference = str(summary["reference"]["visit"])
    opened = open_store(plan.location.url)
    offsets = {
        row["visit"]: load_offset(opened, summary["product"], row["visit"])
        for row in summary["visits"]
        if row["visit"] != reference
    }

    def correction(visit: int, box: Box) -> Image:
        offset = offsets.get(str(visit))
        return np.zeros(box.shape) if offset is None else render(offset, box).astype(np.float64)

    return correction, summary["timings"]


def measure_accuracy(truth: SimulationTruth, correction: Correction) -> Accuracy:
    """Measure the corrections of all visits of a simulated tract.

    Parameters
    ----------
    truth
        Truth of the tract.
    correction
        Gives the image to add to a visit, by its label and a box of tract pixels.
    """
    box = truth.config.geometry.patches.tract_box
    x, y = np.arange(box.x0, box.x1), np.arange(box.y0, box.y1)
    covered = {
        v.visit: v.footprint.coverage(x[np.newaxis].astype(float), y[:, np.newaxis].astype(float))[
            0
        ]
        for v in truth.visits
    }
    left = {visit: (true_sky(truth, visit, box) + correction(visit, box)) for visit in covered}
    rms, level = _pairs(left, covered)
    mean, sets = _mean_coadd(left, covered)
    steps = np.concatenate([np.abs(s) for s in _seams(mean, sets)])
    return Accuracy(
        pair_rms=float(np.median(rms)),
        pair_rms_max=float(np.max(rms)),
        level_error=float(np.median(level)),
        seam_rms=float(np.sqrt(np.mean(steps**2))),
        seam_p95=float(np.percentile(steps, 95)),
        seam_max=float(steps.max()),
        diffuse_kept=_diffuse_kept(mean + true_diffuse(truth, box), true_diffuse(truth, box), sets),
        patch_step=_patch_step(truth, left, covered),
        pairs=len(rms),
    )


def _pairs(
    left: Mapping[int, Image], covered: Mapping[int, NDArray[np.bool_]]
) -> tuple[list[float], list[float]]:
    rms, level = [], []
    for a, b in combinations(left, 2):
        common = covered[a] & covered[b]
        if common.any():
            difference = (left[a] - left[b])[common].astype(np.float64)
            rms.append(float(np.sqrt(np.mean(difference**2))))
            level.append(abs(float(difference.mean())))
    return rms, level


def _mean_coadd(
    left: Mapping[int, Image], covered: Mapping[int, NDArray[np.bool_]]
) -> tuple[Image, NDArray[np.int64]]:
    """Return the background of the mean coadd (NaN without a visit) and the set of its visits."""
    shape = next(iter(left.values())).shape
    total, count, sets = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.int64)
    for place, visit in enumerate(left):
        total = total + np.where(covered[visit], left[visit], 0.0)
        count = count + covered[visit]
        sets = sets + (covered[visit].astype(np.int64) << place)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), sets


def _seams(mean: Image, sets: NDArray[np.int64]) -> Iterator[Image]:
    for axis in (0, 1):
        step = np.diff(mean, axis=axis)
        changes = (np.diff(sets, axis=axis) != 0) & np.isfinite(step)
        yield step[changes]


def _diffuse_kept(coadd: Image, diffuse: Image, sets: NDArray[np.int64]) -> float:
    """Return the coefficient of the diffuse light in the coadd, beside a quadratic."""
    some = (slice(None, None, 4), slice(None, None, 4))
    v, u = np.indices(coadd.shape, np.float64) / max(coadd.shape) - 0.5
    used = sets[some] > 0
    u, v = u[some][used], v[some][used]
    terms = [diffuse[some][used], np.ones_like(u), u, v, u * u, u * v, v * v]
    solution = np.linalg.lstsq(np.stack(terms, axis=1), coadd[some][used], rcond=None)[0]
    return float(solution[0])


def _patch_step(
    truth: SimulationTruth,
    left: Mapping[int, Image],
    covered: Mapping[int, NDArray[np.bool_]],
) -> float:
    grid = truth.config.geometry.patches
    steps = []
    for visit, image in left.items():
        for axis, inner, number in (
            (0, grid.inner_height, grid.ny),
            (1, grid.inner_width, grid.nx),
        ):
            lines = np.moveaxis(image, axis, 0).astype(np.float64)
            seen = np.moveaxis(covered[visit], axis, 0)
            for k in range(1, number):
                at = k * inner
                jump = lines[at] - lines[at - 1]
                slope = 0.5 * (lines[at + 1] - lines[at] + lines[at - 1] - lines[at - 2])
                steps.append((jump - slope)[seen[at] & seen[at - 1]])
    return float(np.sqrt(np.mean(np.concatenate(steps) ** 2)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, match and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="keeps the tract; default: none")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--reference", help="visit to match to")
    parser.add_argument("--patch-size", type=int, default=PATCH)
    parser.add_argument("--seed", type=int, default=42)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.folder or Path(scratch)
        config = tract_config(seed=chosen.seed, patch_size=chosen.patch_size)
        warps = make_tract(folder, config)
        overrides = list(chosen.set)
        if chosen.reference:
            overrides.append(f"reference.visit={chosen.reference}")
        start = time.perf_counter()
        correction, timings = match_tract(warps, Path(scratch) / "tract.zarr", overrides)
        wall = time.perf_counter() - start
        found = measure_accuracy(load_truth(folder), correction)
    figures = {**asdict(found), "seconds": wall, "timings": timings, "overrides": overrides}
    json.dump(figures, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
