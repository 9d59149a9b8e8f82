"""The built reference on the cluster: all visits are measured against a stack of matched hubs."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.built import (
    Member,
    change_of_offsets,
    measure_against_built,
    solve_built,
)
from bgmatch_dask.background.differences import DifferenceSettings
from bgmatch_dask.background.hubs import choose_hubs
from bgmatch_dask.background.offsets import render, render_flags
from bgmatch_dask.background.reference import ReferenceChoice
from bgmatch_dask.background.solution import Flag, Solution
from bgmatch_dask.background.superpixels import SuperpixelSums, from_array, merge, to_array
from bgmatch_dask.background.visits import Visit
from bgmatch_dask.numerics.one_thread import one_thread
from bgmatch_dask.pipeline.basis import unit_basis
from bgmatch_dask.pipeline.context import RunContext
from bgmatch_dask.pipeline.difference import StoredWarps
from bgmatch_dask.pipeline.difference_units import difference_settings, measurement
from bgmatch_dask.pipeline.events import Note
from bgmatch_dask.pipeline.outlier_masks import OutlierMasks
from bgmatch_dask.pipeline.plan import built_rounds
from bgmatch_dask.pipeline.results import load_offset, save_solution, write_arrays
from bgmatch_dask.pipeline.stages import Ingested, solution_digest, solve_config
from bgmatch_dask.store import Receipt, TractStore, open_store
from bgmatch_dask.store.versions import run_of

__all__ = ("BuiltTask", "built_patch", "match_to_built")

Pair = tuple[Visit, Visit]
Coverage = Mapping[Visit, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class BuiltTask:
    """Measure built reference − visit on one patch; each warp is read once."""

    url: str
    run: str
    number: int
    """Which time the reference is built, from 1."""
    patch: int
    members: tuple[tuple[str, float, bool], ...]
    """(visit, inverse sky variance, whether it has an offset) of what the reference is built of."""
    visits: tuple[str, ...]
    settings: DifferenceSettings
    digest: str

    @property
    def unit(self) -> str:
        """Key of the unit."""
        return f"{self.number}/{self.patch}"

    @property
    def path(self) -> str:
        """Object that holds the result."""
        return f"match/{self.run}/built/{self.number}/{self.patch:05d}.npz"


def built_patch(task: BuiltTask) -> Receipt:
    """Carry out a `BuiltTask`."""
    start = time.perf_counter()
    store = open_store(task.url)
    box = store.spec.geometry.patches.inner_box(task.patch)
    outliers = OutlierMasks.of(store, run_of(task.run))
    members: dict[Visit, Member] = {}
    for visit, weight, has_offset in task.members:
        left_out = outliers.on(visit, box)
        drawn = None
        if has_offset:
            offset = load_offset(store, task.run, visit)
            drawn = render(offset, box)
            left_out = left_out | ((render_flags(offset, box) & Flag.EXTRAPOLATED) != 0)
        members[visit] = Member(weight, drawn, left_out)
    sums = measure_against_built(
        members,
        task.visits,
        StoredWarps(store, task.patch, box),
        box,
        store.spec.grid,
        task.settings,
    )
    write_arrays(store, task.path, {"sums": np.stack([to_array(sums[v]) for v in task.visits])})
    return Receipt("built", task.unit, task.digest, time.perf_counter() - start)


def match_to_built(
    run: RunContext,
    ingested: Ingested,
    choice: ReferenceChoice,
    differences: Mapping[Pair, SuperpixelSums],
    coverage: Coverage,
    solution: Solution,
) -> tuple[Solution, tuple[float, ...]]:
    """Build the reference from matched hubs and match all visits to it, as often as asked for.

    Returns
    -------
    tuple
        The last solution, and the rms change of all offsets in each round [image unit].
    """
    rounds = built_rounds(run.plan.config)
    if not rounds:
        return solution, ()
    tied = {str(v) for c in solution.components if c.has_reference for v in c.visits}
    hubs = choose_hubs(
        coverage, choice.cost_order, choice.visit, max_hubs=run.plan.config.match.hubs
    )
    hubs = tuple(hub for hub in hubs if str(hub) in tied)
    if len(hubs) < 2:
        run.emit(Note("The reference cannot be built: fewer than two hubs are matched"))
        return solution, ()
    changes: list[float] = []
    for number in range(1, rounds + 1):
        tasks = _tasks(run, ingested, solution, hubs, tied, number)
        run.run_units("built", built_patch, tasks, difference_settings(run))
        sums = _merged(run.store, tasks)
        with run.stage("solve"), run.record("solve"), one_thread():
            config = solve_config(run.plan.config)
            found = solve_built(solution, sums, differences, coverage, config)
            save_solution(run.store, run.version, found)
        changes.append(change_of_offsets(solution, found, coverage))
        solution = found
    return solution, tuple(changes)


def _tasks(
    run: RunContext,
    ingested: Ingested,
    solution: Solution,
    hubs: tuple[Visit, ...],
    tied: set[str],
    number: int,
) -> list[BuiltTask]:
    made = run.ledger.read("difference")
    with_offset = {str(visit) for visit in solution.offsets}
    tasks = []
    for patch in range(run.plan.spec.geometry.patches.n_patches):
        weights = dict(ingested.weights_of(patch))
        members = tuple(
            (str(hub), weights[str(hub)], str(hub) in with_offset)
            for hub in hubs
            if str(hub) in weights
        )
        visits = tuple(visit for visit in ingested.visits_of(patch) if visit in tied)
        if not members or not visits:
            continue
        masks = {u: r.content for u, r in made.items() if u.partition("/")[0] == str(patch)}
        upstream = [ingested.digests_of(patch), solution_digest(solution), members, visits, masks]
        tasks.append(
            BuiltTask(
                url=run.plan.location.url,
                run=run.version,
                number=number,
                patch=patch,
                members=members,
                visits=visits,
                settings=measurement(run.plan.config),
                digest=unit_basis(difference_settings(run), upstream=upstream),
            )
        )
    return tasks


def _merged(store: TractStore, tasks: list[BuiltTask]) -> dict[Visit, SuperpixelSums]:
    """Return the sums of every visit over the tract."""
    grid, patches = store.spec.grid, store.spec.geometry.patches
    parts: dict[Visit, list[tuple[int, SuperpixelSums]]] = {}
    for task in tasks:
        with np.load(io.BytesIO(store.location.read_bytes(task.path)), allow_pickle=False) as found:
            for visit, part in zip(task.visits, found["sums"], strict=True):
                parts.setdefault(visit, []).append((task.patch, from_array(part)))
    return {
        visit: merge(((grid.window(patches.inner_box(p)), sums) for p, sums in found), grid)
        for visit, found in parts.items()
    }
