"""The built reference: a stack of matched visits, against which all visits are measured again.

After a first solution the hubs agree in their backgrounds, and their weighted mean is smooth and
continuous over the whole tract, wherever one visit ends and the next begins (LDM-151 §5.2.2,
step 1). It is deeper than any visit, and every visit overlaps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.diagnostics import pair_residuals
from bgmatch_dask.background.differences import (
    DifferenceSettings,
    Pixels,
    WarpReader,
    subtract_pixels,
)
from bgmatch_dask.background.offsets import at_superpixels
from bgmatch_dask.background.solution import Component, Solution, SolveConfig
from bgmatch_dask.background.solve import solve_offsets
from bgmatch_dask.background.superpixel_folds import predict_observations
from bgmatch_dask.background.superpixels import SuperpixelSums
from bgmatch_dask.background.visits import Visit, sorted_visits
from bgmatch_dask.geometry import Box, SuperpixelGrid
from bgmatch_dask.maskplanes import DETECTIONS, bits_of

__all__ = ("BUILT", "Member", "change_of_offsets", "measure_against_built", "solve_built")

BUILT = "built reference"
"""Stands for the built reference among the visits of a solution; no visit has a blank."""

Pair: TypeAlias = tuple[Visit, Visit]
Plane = NDArray[np.bool_]
_Sums: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]

_SOURCES = bits_of(DETECTIONS)


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """What one visit adds to the built reference on a box."""

    weight: float
    """Inverse sky variance [1 / image unit squared]."""
    offset: NDArray[np.float32] | None
    """What brings the visit to the common background, ``[y, x]``; None for zero."""
    left_out: Plane | None = None
    """Pixels of the visit that are not used: its outliers, and where its offset is a guess."""


@dataclass(slots=True, eq=False)
class _Stack:
    """Sums of a weighted mean, from which each member can be taken out again."""

    total: NDArray[np.float64]
    weight: NDArray[np.float64]
    sources: Plane

    def without(self, part: _Sums | None) -> NDArray[np.float32]:
        """Return the mean of all members, or of all but one; NaN where nothing is left."""
        total, weight = self.total, self.weight
        if part is not None:
            total, weight = total - part[0], np.where(part[1] > 0, weight - part[1], weight)
        # What is left of a sum after its only member was taken out is rounding, not data.
        some = (weight > 1e-6 * self.weight) & ~self.sources
        image = np.full(total.shape, np.nan, np.float32)
        np.divide(total, weight, out=image, where=some, casting="same_kind")
        return image


def measure_against_built(
    members: Mapping[Visit, Member],
    visits: Sequence[Visit],
    reader: WarpReader,
    box: Box,
    grid: SuperpixelGrid,
    settings: DifferenceSettings,
) -> dict[Visit, SuperpixelSums]:
    """Measure built reference − visit on one patch.

    Parameters
    ----------
    members
        The hubs that the reference is built of.
    visits
        Visits to measure; of a member, the reference is that of the other members.
    reader
        Gives the pixels; each plane is asked for at most once.
    box
        Tract pixels that are counted: the inner box of the patch.
    grid
        Superpixels of the tract.
    settings
        Masks, clipping and outliers, as for pairs. Sources that any member detects are left out
        of the reference: those of one visit would stand beside the wings of another's.

    Returns
    -------
    dict
        Sums of every visit, of the shape of ``grid.window(box)``.
    """
    bits = settings.bad_bits
    held: dict[Visit, Pixels] = {}
    stack = _Stack(np.zeros(box.shape), np.zeros(box.shape), np.zeros(box.shape, bool))
    for hub in sorted_visits(members):
        mask = reader.mask(hub)
        stack.sources |= (mask & bits & _SOURCES) != 0
        held[hub] = Pixels.of(reader.image(hub), mask, bits)
        total, weight = _part(members[hub], held[hub])
        stack.total += total
        stack.weight += weight
    sums: dict[Visit, SuperpixelSums] = {}
    for visit in sorted_visits(visits):
        pixels = held.get(visit) or Pixels.read(reader, visit, box, bits)
        own = members.get(visit)
        part = None if own is None else _part(own, pixels)
        reference = Pixels.of(stack.without(part), None, 0)
        sums[visit] = subtract_pixels(reference, pixels, box, grid, settings).sums
    return sums


def _part(member: Member, pixels: Pixels) -> _Sums:
    good = np.isfinite(pixels.image)
    if member.left_out is not None:
        good &= ~member.left_out
    matched = pixels.image.astype(np.float64)
    if member.offset is not None:
        matched += member.offset
    return np.where(good, member.weight * matched, 0.0), np.where(good, member.weight, 0.0)


def solve_built(
    first: Solution,
    sums: Mapping[Visit, SuperpixelSums],
    differences: Mapping[Pair, SuperpixelSums],
    coverage: Mapping[Visit, Plane],
    config: SolveConfig | None = None,
) -> Solution:
    """Solve the offsets of all visits from their differences to the built reference.

    Parameters
    ----------
    first
        The solution that the reference was built with.
    sums
        Tract-wide sums of built reference − visit.
    differences
        The differences between visits that ``first`` was solved from: they judge the result, and
        tie visits that nothing ties to the reference.
    coverage
        Superpixels of each visit.
    config
        Model and robustness.

    Returns
    -------
    Solution
        Its observations, residuals and diagnostics are those of ``differences``.

    Notes
    -----
    The built reference takes part as one more visit with an unknown offset, the reference visit
    stays the gauge. So the error of its level counts in the variance of every offset.
    """
    lost = {v for c in first.components if not c.has_reference for v in c.visits}
    pairs: dict[Pair, SuperpixelSums] = {(BUILT, visit): found for visit, found in sums.items()}
    pairs |= {pair: found for pair, found in differences.items() if set(pair) <= lost}
    built = np.logical_or.reduce([found.count > 0 for found in sums.values()])
    order = (BUILT, *coverage)
    planes: Mapping[Visit, Plane] = {**coverage, BUILT: built}
    # Chosen anew each round, they would keep the rounds from settling.
    strengths = first.strengths if BUILT in first.strengths else None
    solved = solve_offsets(
        pairs,
        planes,
        first.grid,
        first.reference,
        config,
        cost_order=order,
        strengths=strengths,
    )
    offsets = {visit: offset for visit, offset in solved.offsets.items() if visit != BUILT}
    return _judged(first, replace(solved, offsets=offsets))


def _judged(first: Solution, solved: Solution) -> Solution:
    """Return a solution with the observations of the first one and their new residuals."""
    components = tuple(
        Component(tuple(v for v in c.visits if v != BUILT), c.gauge, c.has_reference)
        for c in solved.components
        if c.visits != (BUILT,)
    )
    found = replace(
        solved,
        components=components,
        figures={visit: f for visit, f in solved.figures.items() if visit != BUILT},
        observations=first.observations,
        robust=first.robust,
        leverage=first.leverage,
    )
    prediction = predict_observations(found)
    pairs = pair_residuals(first.observations, prediction, first.robust)
    return replace(found, prediction=prediction, pairs=pairs)


def change_of_offsets(before: Solution, after: Solution, coverage: Mapping[Visit, Plane]) -> float:
    """Return the rms change of the offsets of all visits on the superpixels that they cover."""
    changes = []
    for visit in sorted_visits(after.offsets):
        if visit in before.offsets and coverage[visit].any():
            old, new = (at_superpixels(s.offsets[visit]) for s in (before, after))
            changes.append((new - old)[coverage[visit]])
    values = np.concatenate(changes) if changes else np.zeros(0)
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0
