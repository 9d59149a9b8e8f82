"""The stages of a tract job, in the order of the flow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.hubs import choose_hubs, pairs_for_patch
from bgmatch_dask.background.reference import ReferenceChoice
from bgmatch_dask.background.solution import Solution, SolveConfig
from bgmatch_dask.background.solve import solve_offsets
from bgmatch_dask.background.superpixels import SuperpixelSums, from_array, merge
from bgmatch_dask.background.visits import Visit
from bgmatch_dask.coadd.layout import COADD_PLANES
from bgmatch_dask.config import RunConfig
from bgmatch_dask.errors import InputError, Rejected
from bgmatch_dask.geometry import SuperpixelWindow
from bgmatch_dask.maskplanes import bits_of
from bgmatch_dask.numerics.one_thread import one_thread
from bgmatch_dask.pipeline.basis import settings_of, unit_basis
from bgmatch_dask.pipeline.coadd_unit import CoaddTask, coadd_patch
from bgmatch_dask.pipeline.context import RunContext
from bgmatch_dask.pipeline.difference import difference_patch, read_differences
from bgmatch_dask.pipeline.difference_units import (
    Batch,
    difference_settings,
    forget_unused,
    plan_batches,
)
from bgmatch_dask.pipeline.joining import known_units, place_of
from bgmatch_dask.pipeline.photometric_ratio import make_ratio_cube
from bgmatch_dask.pipeline.plan import stage_digest
from bgmatch_dask.pipeline.reference_choice import choose
from bgmatch_dask.pipeline.results import Method, save_solution, save_visit_sums
from bgmatch_dask.pipeline.tasks import (
    MatchTask,
    ingest_unit,
    match_unit,
)
from bgmatch_dask.store import Receipt
from bgmatch_dask.store.data_ids import write_data_ids
from bgmatch_dask.store.layout import PLANES, create_patch_array, create_plane_array
from bgmatch_dask.store.receipt import digest_of
from bgmatch_dask.store.visits import read_visits, write_visits
from bgmatch_dask.warps.tract import natural_key

__all__ = (
    "Ingested",
    "Matching",
    "coadd",
    "difference",
    "ingest",
    "match",
    "of_solution",
    "reference",
    "solution_digest",
    "solve",
    "solve_config",
)

Pair = tuple[Visit, Visit]
Coverage = Mapping[Visit, NDArray[np.bool_]]


_READERS = 8
"""Objects that the driver reads at the same time: from a server each takes a round trip."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What the store holds after ingest."""

    receipts: Mapping[str, Receipt]
    """Receipt of every unit."""
    usable: tuple[tuple[str, int], ...]
    """(visit, patch) of the warps that have a usable pixel, in the order of the plan."""
    rejected: tuple[Rejected, ...]
    """Inputs left out, by the headers or by the pixels, each once."""

    def visits_of(self, patch: int) -> tuple[str, ...]:
        """Return the visits that have a usable warp of a patch."""
        return tuple(visit for visit, p in self.usable if p == patch)

    def digests_of(self, patch: int) -> dict[str, str]:
        """Return the digests of the stored pixels of the usable warps of a patch, by visit."""
        return {v: self.pixels_of(v, patch) for v in self.visits_of(patch)}

    def weights_of(self, patch: int) -> tuple[tuple[str, float], ...]:
        """Return the inverse sky variance of the usable warps of a patch that have one."""
        variances = {
            visit: float(self.receipts[f"{visit}/{patch}"].figures["sky_variance"])
            for visit in self.visits_of(patch)
        }
        return tuple((v, 1.0 / s) for v, s in variances.items() if np.isfinite(s) and s > 0)

    def pixels_of(self, visit: str, patch: int) -> str:
        """Return the digest of the stored pixels of a warp."""
        written = self.receipts[f"{visit}/{patch}"].written
        pixels = [item.row for item in written if not item.name.startswith("superpixels/")]
        return digest_of(pixels)


@dataclass(frozen=True, slots=True)
class Matching:
    """What matched warps and coadds are made of."""

    method: Method
    """How the offsets were found."""
    reference: str
    """Visit without an offset."""
    digest: str
    """Digest of all offsets."""
    dropped: Mapping[int, tuple[str, ...]]
    """Visits without a level that the reference knows, by patch; in no matched coadd."""
    gated: frozenset[tuple[str, int | None]] = frozenset()
    """(visit, patch; None: all patches) that the gate drops: matched, but in no matched coadd."""

    def left_out(self, patch: int) -> tuple[str, ...]:
        """Return the visits that the matched coadd of a patch leaves out."""
        gated = sorted(visit for visit, p in self.gated if p in {None, patch})
        return tuple(dict.fromkeys([*self.dropped.get(patch, ()), *gated]))

    def has_offset(self, visit: str, patch: int) -> bool:
        """Whether a matched warp exists: a disconnected visit has an offset of arbitrary level."""
        return self.method == "joint" or visit not in self.dropped.get(patch, ())


def ingest(run: RunContext) -> Ingested:
    """Put every warp and its superpixel sums into the store.

    Raises
    ------
    InputError
        ``no-data`` when no input has a usable pixel.
    """
    make_ratio_cube(run)
    planned = {task.visit for task in run.plan.ingest}
    with run.record("visits"):
        facts = {visit: facts for visit, facts in run.plan.visits.items() if visit in planned}
        write_visits(run.plan.location, facts)
        names = ((task.visit, task.patch, dict(task.files[0].data_id)) for task in run.plan.ingest)
        write_data_ids(run.plan.location, (name for name in names if name[2]))
    receipts = run.run_units("ingest", ingest_unit, run.plan.ingest, run.plan.settings)
    receipts |= known_units(run.plan, run.ledger) if run.plan.config.inputs.join else {}
    usable = tuple(place_of(u) for u, r in receipts.items() if r.figures.get("n_valid"))
    usable = tuple(sorted(usable, key=lambda place: (place[1], natural_key(place[0]))))
    found = [rejection for receipt in receipts.values() for rejection in receipt.rejected]
    # A file that touches several patches is rejected by each; people want to read it once.
    rejected = tuple(dict.fromkeys([*run.plan.rejected, *found, *_empty(run, receipts)]))
    if not usable:
        raise InputError("no-data", "No input has a usable pixel", where=run.plan.location.url)
    return Ingested(receipts, usable, rejected)


def _empty(run: RunContext, receipts: Mapping[str, Receipt]) -> list[Rejected]:
    """Reject visits none of whose units has a pixel and none of whose files was rejected."""
    silent: dict[str, bool] = {}
    sources: dict[str, str] = {}
    for task in run.plan.ingest:
        receipt = receipts[task.unit]
        used = bool(receipt.figures.get("n_valid")) or bool(receipt.rejected)
        silent[task.visit] = silent.get(task.visit, True) and not used
        sources.setdefault(task.visit, task.files[0].path)
    for unit, receipt in receipts.items():
        # A visit that joined before is there, whatever a further file of it gives.
        if place_of(unit)[0] in silent and receipt.figures.get("n_valid"):
            silent[place_of(unit)[0]] = False
    return [
        Rejected("no-data", f"Visit {visit} has no usable pixel on the tract", sources[visit])
        for visit, empty in silent.items()
        if empty
    ]


def reference(
    run: RunContext, ingested: Ingested
) -> tuple[ReferenceChoice, dict[Visit, SuperpixelSums]]:
    """Merge the sums of each visit over the tract and choose the reference from them."""
    with run.stage("reference"), run.record("reference"):
        sums = _tract_sums(run, ingested)
        save_visit_sums(run.store, sums)
        known = read_visits(run.plan.location)
        choice = choose(run.plan.config, sums, run.plan.spec.grid, run.plan.spec.unit, known)
    return choice, sums


def _tract_sums(run: RunContext, ingested: Ingested) -> dict[Visit, SuperpixelSums]:
    """Return the sums of each visit with usable warps, in the order of the visit axis."""
    spec, store = run.plan.spec, run.store
    patches: dict[str, list[int]] = {}
    for visit, patch in sorted(ingested.usable):
        patches.setdefault(visit, []).append(patch)
    windows = {
        p: spec.grid.window(spec.geometry.patches.inner_box(p))
        for p in range(spec.geometry.patches.n_patches)
    }
    sums: dict[Visit, SuperpixelSums] = {}
    with ThreadPoolExecutor(_READERS) as pool:
        for visit in filter(patches.__contains__, spec.visits):
            read = partial(store.read_unit_sums, spec.visit_index(visit))
            found = zip(patches[visit], pool.map(read, patches[visit]), strict=True)
            sums[visit] = merge(((windows[p], from_array(part)) for p, part in found), spec.grid)
    return sums


def difference(
    run: RunContext, ingested: Ingested, choice: ReferenceChoice, coverage: Coverage
) -> dict[Pair, SuperpixelSums]:
    """Measure the differences of all visits to the hubs that cover them."""
    config = run.plan.config
    hubs: tuple[Visit, ...] = (choice.visit,)
    if config.match.method != "reference":
        hubs = choose_hubs(coverage, choice.cost_order, choice.visit, max_hubs=config.match.hubs)
    batches: list[Batch] = []
    for patch in range(run.plan.spec.geometry.patches.n_patches):
        pairs = pairs_for_patch(hubs, ingested.visits_of(patch))
        labels = [(str(hub), str(visit)) for hub, visit in pairs]
        if labels:
            batches += plan_batches(run, patch, labels, ingested.digests_of(patch))
    # The longest first: no worker is left with a long one when the others have nothing to do.
    tasks = sorted((batch.task for batch in batches), key=lambda task: -len(task.pairs))
    run.run_units("difference", difference_patch, tasks, difference_settings(run))
    forget_unused(run, batches)
    return _merge_differences(run, batches)


def _merge_differences(run: RunContext, batches: Sequence[Batch]) -> dict[Pair, SuperpixelSums]:
    spec = run.plan.spec
    parts: dict[Pair, list[tuple[int, SuperpixelSums]]] = {}
    windows: dict[int, SuperpixelWindow] = {}
    with ThreadPoolExecutor(_READERS) as pool:
        measured = pool.map(lambda batch: read_differences(run.store, batch.task), batches)
        for batch, found in zip(batches, measured, strict=True):
            patch = batch.task.patch
            windows[patch] = spec.grid.window(spec.geometry.patches.inner_box(patch))
            for pair, sums in found.items():
                if pair in batch.pairs and np.any(sums.count > 0):
                    parts.setdefault(pair, []).append((patch, sums))
    return {
        pair: merge(((windows[patch], sums) for patch, sums in own), spec.grid)
        for pair, own in sorted(parts.items(), key=lambda item: str(item[0]))
    }


def solve(
    run: RunContext,
    differences: Mapping[Pair, SuperpixelSums],
    coverage: Coverage,
    choice: ReferenceChoice,
) -> Solution:
    """Solve the offsets of all visits from all differences and store them."""
    config = run.plan.config
    run.create_group(f"match/{run.version}", lambda _: None)
    # One thread: the sum of a product depends on how many share it, and for blocks of this size
    # threads cost ten times what they save.
    with run.stage("solve"), run.record("solve"), one_thread():
        solution = solve_offsets(
            differences,
            coverage,
            run.plan.spec.grid,
            choice.visit,
            solve_config(config),
            cost_order=choice.cost_order,
        )
        save_solution(run.store, run.version, solution)
    return solution


def solve_config(config: RunConfig) -> SolveConfig:
    """Return how offsets are modelled and solved."""
    return SolveConfig(order=config.match.order, smoothing=config.match.smoothing)


def of_solution(run: RunContext, solution: Solution) -> Matching:
    """Return the matching of tract-wide offsets; visits of arbitrary level are in no coadd."""
    loose = tuple(
        str(visit)
        for component in solution.components
        if not component.has_reference
        for visit in component.visits
    )
    dropped = dict.fromkeys(range(run.plan.spec.geometry.patches.n_patches), loose)
    digest = solution_digest(solution)
    return Matching("joint", str(solution.reference), digest, dropped)


def match(run: RunContext, ingested: Ingested, matching: Matching) -> None:
    """Write matched warps, when the configuration asks for them; they are virtual otherwise."""
    config = run.plan.config
    if not config.match.write_warps:
        return
    run.create_group(
        f"match/{run.version}/warps",
        lambda group: [create_plane_array(group, name, run.plan.spec) for name in PLANES],
    )
    tasks = [
        MatchTask(
            url=run.plan.location.url,
            run=run.version,
            visit=visit,
            patch=patch,
            reference=matching.reference,
            digest=unit_basis({}, upstream=_upstream(ingested, matching, visit, patch)),
            method=matching.method,
            matched=matching.has_offset(visit, patch),
        )
        for visit, patch in ingested.usable
    ]
    run.run_units("match", match_unit, tasks)


def coadd(run: RunContext, ingested: Ingested, matching: Matching) -> None:
    """Stack the matched warps of every patch, and by choice the unmatched ones."""
    config, patches = run.plan.config, run.plan.spec.geometry.patches
    for name in ("matched", "unmatched") if config.coadd.write_unmatched else ("matched",):
        run.create_group(
            f"coadd/{run.version}_{name}",
            lambda group: [
                create_patch_array(group, plane, kind, run.plan.spec)
                for plane, kind in COADD_PLANES.items()
            ],
        )
    settings = settings_of(config, "coadd")
    measured = run.ledger.read("difference") if config.coadd.outliers else {}
    masks = {unit: receipt.content for unit, receipt in measured.items()}
    tasks = [
        CoaddTask(
            url=run.plan.location.url,
            run=run.version,
            patch=patch,
            weights=ingested.weights_of(patch),
            reference=matching.reference,
            dropped=matching.left_out(patch),
            bad_bits=bits_of(config.coadd.mask),
            write_unmatched=config.coadd.write_unmatched,
            digest=unit_basis(
                settings,
                upstream=[
                    ingested.digests_of(patch),
                    matching.digest,
                    matching.reference,
                    matching.left_out(patch),
                    masks,
                ],
            ),
            method=matching.method,
            outliers=config.coadd.outliers,
        )
        for patch in range(patches.n_patches)
        if ingested.visits_of(patch)
    ]
    tasks.sort(key=lambda task: -len(task.weights))
    run.run_units("coadd", coadd_patch, tasks, settings)


def solution_digest(solution: Solution) -> str:
    """Return the digest of all offsets that matched warps and coadds are made of."""
    content = hashlib.blake2b(digest_size=8)
    for visit, offset in solution.offsets.items():
        content.update(str(visit).encode())
        content.update(np.ascontiguousarray(offset.nodes).tobytes())
        content.update(np.ascontiguousarray(offset.variance).tobytes())
    return stage_digest(content.hexdigest(), str(solution.reference))


def _upstream(ingested: Ingested, matching: Matching, visit: str, patch: int) -> list[object]:
    """Return what a matched warp is made of."""
    return [
        ingested.pixels_of(visit, patch),
        matching.digest,
        matching.reference,
        matching.has_offset(visit, patch),
    ]
