"""Which differences have to be measured: pairs that no earlier run has measured from these pixels.

A unit of the stage is one patch with a batch of pairs. The first batch of a patch holds all its
pairs. When visits join later, their pairs make a batch of their own, and no pixel of a pair that
is known is read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bgmatch_dask.background.differences import DifferenceSettings
from bgmatch_dask.config import RunConfig
from bgmatch_dask.pipeline.basis import code_version, settings_of, unit_basis
from bgmatch_dask.pipeline.context import RunContext
from bgmatch_dask.pipeline.difference import DifferenceTask
from bgmatch_dask.pipeline.plan import clipping
from bgmatch_dask.store.receipt import Receipt, digest_of

__all__ = ("Batch", "difference_settings", "forget_unused", "measurement", "plan_batches")

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Batch:
    """One unit of the stage, measured or to be measured."""

    task: DifferenceTask
    """The unit."""
    pairs: frozenset[Pair]
    """The pairs that count: others of the batch were measured from pixels of before."""


def difference_settings(run: RunContext) -> dict[str, Any]:
    """Return the configuration that differences depend on."""
    return settings_of(
        run.plan.config,
        "background.bin_size",
        "background.n_sigma",
        "background.n_iter",
        "background.mask",
        "match.mask_detected",
        "match.outlier_sigma",
        "match.difference",
    )


def plan_batches(
    run: RunContext, patch: int, pairs: Sequence[Pair], contents: Mapping[str, str]
) -> list[Batch]:
    """Return the batches of a patch: those of before that hold, and one of what is new.

    Parameters
    ----------
    run
        The run.
    patch
        The patch.
    pairs
        All (hub, visit) pairs of the patch.
    contents
        Digest of the stored pixels of every visit on the patch.
    """
    settings = difference_settings(run)
    # Under one mask for all visits of the patch, a pair depends on every one of them.
    all_visits = sorted(contents.items()) if run.plan.config.match.difference != "pixel" else []
    wanted = {
        (hub, visit): digest_of(
            [settings, code_version(), contents[hub], contents[visit], *map(list, all_visits)]
        )
        for hub, visit in pairs
    }
    batches: list[Batch] = []
    missing = dict(wanted)
    for receipt in _measured(run, patch):
        rows = {(hub, visit): digest for hub, visit, digest in receipt.figures["pairs"]}
        fit = frozenset(p for p, digest in rows.items() if missing.get(p) == digest)
        if fit:
            batches.append(Batch(_task(run, patch, receipt.unit, rows), fit))
            missing = {pair: d for pair, d in missing.items() if pair not in fit}
    if missing:
        name = digest_of(sorted(missing.items()))[:8]
        unit = f"{patch}/{name}" if batches else str(patch)
        batches.append(Batch(_task(run, patch, unit, missing), frozenset(missing)))
    return batches


def _measured(run: RunContext, patch: int) -> list[Receipt]:
    known = run.ledger.read("difference")
    return [known[unit] for unit in sorted(known) if unit.partition("/")[0] == str(patch)]


def _task(run: RunContext, patch: int, unit: str, digests: Mapping[Pair, str]) -> DifferenceTask:
    config = run.plan.config
    return DifferenceTask(
        url=run.plan.location.url,
        run=config.run,
        patch=patch,
        pairs=tuple(digests),
        pair_digests=tuple(digests.values()),
        settings=measurement(config),
        digest=unit_basis(
            difference_settings(run), upstream=[[*pair, d] for pair, d in digests.items()]
        ),
        unit=unit,
    )


def measurement(config: RunConfig) -> DifferenceSettings:
    """Return how differences are measured."""
    clip = clipping(config)
    return DifferenceSettings(
        method=config.match.difference,
        bad_bits=clip.bad_bits,
        n_sigma=clip.n_sigma,
        n_iter=clip.n_iter,
        outlier_sigma=config.match.outlier_sigma,
    )


def forget_unused(run: RunContext, batches: Iterable[Batch]) -> None:
    """Delete batches of before that no pair of today needs."""
    used = {batch.task.unit for batch in batches}
    unused = {u: r for u, r in run.ledger.read("difference").items() if u not in used}
    if unused:
        run.ledger.drop("difference", set(unused))
        for receipt in unused.values():
            for item in receipt.written:
                run.plan.location.delete(item.name)
