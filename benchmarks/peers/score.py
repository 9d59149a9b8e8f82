"""How far the corrections of a program are from the truth."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.scene import Scene

__all__ = ("Score", "score")

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of one program [image unit]."""

    error: float
    """Median over pairs of visits of the rms of the error of their background difference."""
    worst: float
    """The worst pair."""
    seam: float
    """Rms step of the mean coadd's background where the set of visits changes."""
    seam_worst: float
    """The largest step."""
    diffuse: float
    """Share of the faint extended light that is kept."""
    visits: int
    """Visits that were brought to one level."""


def score(scene: Scene, corrections: Path) -> Score:
    """Compare corrections with the truth, without noise.

    What is left of a visit's background is its true background plus the correction. Pairs are
    compared over their common good pixels; the coadd is the plain mean of what is left.
    """
    left, good = _left(scene, corrections)
    visits = [visit for visit in left if np.isfinite(left[visit]).any()]
    errors = []
    for a, b in combinations(visits, 2):
        common = good[a] & good[b] & np.isfinite(left[a]) & np.isfinite(left[b])
        if common.sum() > 200:
            errors.append(float(np.sqrt(np.mean((left[a] - left[b])[common] ** 2))))
    values = np.stack([np.where(good[v], left[v], np.nan) for v in visits])
    steps = _seams(values)
    return Score(
        float(np.median(errors)),
        max(errors),
        float(np.sqrt(np.mean(steps**2))),
        float(np.abs(steps).max()),
        _kept(values, np.load(scene.folder / "diffuse.npy")),
        len(visits),
    )


def _left(scene: Scene, path: Path) -> tuple[dict[str, Array], dict[str, NDArray[np.bool_]]]:
    left, good = {}, {}
    with np.load(path, allow_pickle=False) as found:
        for visit in scene.visits:
            with np.load(scene.folder / f"truth-{visit}.npz") as truth:
                sky, good[visit] = truth["sky"], truth["good"]
            correction = found[visit] if visit in found.files else np.full(sky.shape, np.nan)
            left[visit] = sky + correction
    return left, good


def _seams(values: Array) -> Array:
    """Return the steps between neighbours whose visits differ, the smooth change taken out."""
    steps = []
    for a, b in ((values[:, :, :-1], values[:, :, 1:]), (values[:, :-1], values[:, 1:])):
        here, there = np.isfinite(a), np.isfinite(b)
        changes = (here != there).any(0) & here.any(0) & there.any(0) & (here & there).any(0)
        pixels, following = a[:, changes], b[:, changes]
        both = np.isfinite(pixels) & np.isfinite(following)
        drift = _mean(np.where(both, following - pixels, np.nan))
        steps.append(_mean(following) - _mean(pixels) - drift)
    return np.concatenate(steps)


def _mean(values: Array) -> Array:
    filled = np.isfinite(values)
    out: Array = np.where(filled, values, 0.0).sum(0) / np.maximum(filled.sum(0), 1)
    return out


def _kept(values: Array, diffuse: Array) -> float:
    """Return the slope of (coadd's background + diffuse light) on the diffuse light."""
    seen = np.isfinite(values).any(0)
    coadd = (_mean(values) + diffuse)[seen]
    indices: Array = np.indices(diffuse.shape, np.float64)
    y, x = (axis[seen] / max(diffuse.shape) - 0.5 for axis in indices)
    columns = np.stack([diffuse[seen], np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    return float(np.linalg.lstsq(columns, coadd, rcond=None)[0][0])
