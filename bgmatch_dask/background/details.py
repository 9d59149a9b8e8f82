"""Details on the superpixels, visit by visit, that the draft of a wide tract leaves over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.detail import Detail, fit_detail
from bgmatch_dask.background.layout import NodeWindow
from bgmatch_dask.background.observations import Observations
from bgmatch_dask.geometry import SuperpixelGrid
from bgmatch_dask.numerics.surface_samples import sample_boxes, sample_planes

__all__ = ("Details",)

Array = NDArray[np.float64]

_ROUNDS = 4


class Details:
    """Surfaces on superpixels, and what is left over of every difference.

    Among visits of the core a residual belongs to the visit that shows it against all others:
    the one whose detail gains most goes first. A gauge, whose offset is zero, takes part; what
    it shows is taken from all visits that it ties in the end.
    """

    def __init__(
        self,
        data: Observations,
        nodes: Sequence[Array],
        windows: Sequence[NodeWindow],
        grid: SuperpixelGrid,
        strength: float | None,
        core: Sequence[int],
        found: Mapping[int, Detail] | None = None,
    ) -> None:
        self._data, self._strength = data, strength
        unit = np.sqrt(grid.bin_x * grid.bin_y)
        self._steps = (grid.bin_y / unit, grid.bin_x / unit)
        n = len(windows)
        self._starts = np.searchsorted(data.pair, np.arange(len(data.pairs) + 1))
        gauges: dict[object, int] = {}
        self._ends: list[tuple[int, int]] = []
        for p, labels in enumerate(data.pairs):
            k = self._starts[p]
            known = (data.hub[k], data.visit[k]) if k < self._starts[p + 1] else (0, 0)
            self._ends.append(
                tuple(
                    int(e) if e >= 0 else gauges.setdefault(label, n + len(gauges))
                    for e, label in zip(known, labels, strict=True)
                )  # type: ignore[arg-type]
            )
        ny, nx = grid.shape
        whole = NodeWindow(0, 0, nx + 4, ny + 4)
        self.n_visits = n
        self.windows = [*windows, *(whole for _ in gauges)]
        self.nodes = [*nodes, *(np.zeros((ny + 4, nx + 4)) for _ in gauges)]
        self.found = dict(found or {})
        for v, detail in self.found.items():
            self.nodes[v] = self.nodes[v] + detail.nodes
        self.mean_weight: dict[int, float] = {}
        self.freedom = np.zeros(n)
        self.rounds = 0
        self._members = [*core, *self.gauges]
        self._pairs_of: list[list[int]] = [[] for _ in self.nodes]
        for p, ends in enumerate(self._ends):
            if self._starts[p] < self._starts[p + 1]:
                for end, other in (ends, ends[::-1]):
                    if other in self._members:
                        self._pairs_of[end].append(p)
        self._planes: dict[int, Array] = {}

    @property
    def gauges(self) -> range:
        """Numbers of the gauges, after the unknown visits."""
        return range(self.n_visits, len(self.nodes))

    def of_core(self) -> None:
        """Find the details of the core and the gauges, the most conspicuous first."""
        trials = {v: self._trial(v) for v in self._members}
        for _ in range(_ROUNDS * len(self._members)):
            best = max(trials, key=lambda v: (_gain(trials[v]), -v))
            detail = trials[best]
            if detail is None:
                break
            self._apply(best, detail)
            self.rounds += 1
            trials = {v: self._trial(v) for v in self._members}

    def of_others(self) -> None:
        """Find the details of all others against the core."""
        for v in sorted(set(range(self.n_visits)) - set(self._members)):
            for _ in range(_ROUNDS):
                detail = self._trial(v)
                if detail is None:
                    break
                self._apply(v, detail)
                self.rounds += 1
            self._planes.pop(v, None)

    def differences(self) -> Array:
        """Return the part of the details in every difference."""
        out = np.zeros(len(self._data))
        for p, ends in enumerate(self._ends):
            for end, sign in zip(ends, (-1.0, 1.0), strict=True):
                if end in self.found and self._starts[p] < self._starts[p + 1]:
                    planes = sample_planes(self.found[end].nodes)
                    out[self._at(p)] += sign * self._sample(planes, p, end)
        return out

    def prediction(self) -> Array:
        """Return the modelled differences."""
        out = np.empty(len(self._data))
        for p in range(len(self._ends)):
            out[self._at(p)] = self._predict(p)
        return out

    def _at(self, pair: int) -> slice:
        return slice(int(self._starts[pair]), int(self._starts[pair + 1]))

    def _predict(self, pair: int) -> Array:
        hub, visit = self._ends[pair]
        out: Array = self._sample(self._sampled(visit), pair, visit)
        return out - self._sample(self._sampled(hub), pair, hub)

    def _sample(self, planes: Array, pair: int, end: int) -> Array:
        data, at = self._data, self._at(pair)
        y0, x0 = self.windows[end].y0, self.windows[end].x0
        return sample_boxes(
            planes,
            data.sy[at] - y0,
            data.sx[at] - x0,
            data.low[0][at] - y0,
            data.high[0][at] - y0,
            data.low[1][at] - x0,
            data.high[1][at] - x0,
        )

    def _sampled(self, visit: int) -> Array:
        if visit not in self._planes:
            if len(self._planes) > 40:
                self._planes.pop(next(iter(self._planes)))
            self._planes[visit] = sample_planes(self.nodes[visit])
        return self._planes[visit]

    def _left_over(self, visit: int) -> tuple[Array, Array]:
        """Return the mean residual of a visit on its superpixels, and its weight."""
        window, data = self.windows[visit], self._data
        ny, nx = window.ny - 4, window.nx - 4
        total, weight = np.zeros(ny * nx), np.zeros(ny * nx)
        for p in self._pairs_of[visit]:
            at = self._at(p)
            residual = data.value[at] - self._predict(p)
            sign = 1.0 if self._ends[p][1] == visit else -1.0
            place = (data.sy[at] - window.y0) * nx + data.sx[at] - window.x0
            total += np.bincount(place, sign * data.weight[at] * residual, ny * nx)
            weight += np.bincount(place, data.weight[at], ny * nx)
        mean = total / np.where(weight > 0, weight, 1.0)
        return mean.reshape(ny, nx), weight.reshape(ny, nx)

    def _trial(self, visit: int) -> Detail | None:
        residual, weight = self._left_over(visit)
        if not (weight > 0).any():
            return None
        mean = float(weight[weight > 0].mean())
        self.mean_weight[visit] = mean
        given = None if self._strength is None else self._strength / mean
        if given is not None and visit in self.found:
            return None
        return fit_detail(residual, weight, self._steps, given, self.found.get(visit))

    def _apply(self, visit: int, detail: Detail) -> None:
        old = self.found.get(visit)
        added = detail.nodes if old is None else detail.nodes - old.nodes
        self.nodes[visit] = self.nodes[visit] + added
        self._planes.pop(visit, None)
        self.found[visit] = detail
        if visit < self.n_visits:
            self.freedom[visit] = detail.freedom

    def regauge(self) -> None:
        """Take what the gauges show from all visits that they tie; gauges are zero again."""
        tied = _components(len(self.nodes), self._ends)
        for gauge in self.gauges:
            if gauge not in self.found:
                continue
            moved = self.nodes[gauge]
            for v in range(self.n_visits):
                if tied[v] == tied[gauge]:
                    w = self.windows[v]
                    part = moved[w.y0 : w.y0 + w.ny, w.x0 : w.x0 + w.nx]
                    self.nodes[v] = self.nodes[v] - part
            self.nodes[gauge] = np.zeros_like(moved)
        self._planes.clear()


def _gain(detail: Detail | None) -> float:
    return -1.0 if detail is None else detail.gain


def _components(n: int, ends: Sequence[tuple[int, int]]) -> list[int]:
    group = list(range(n))
    for a, b in ends:
        if group[a] != group[b]:
            old, new = group[b], group[a]
            group = [new if g == old else g for g in group]
    return group
