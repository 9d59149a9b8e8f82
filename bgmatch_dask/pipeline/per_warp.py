"""Per-warp matching on the cluster: one unit is one patch, whose reference warp is held."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.per_warp import PerWarpConfig, WarpMatch, match_warp
from bgmatch_dask.config import RunConfig
from bgmatch_dask.errors import BgmatchError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.chebyshev import Weighting
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.one_thread import one_thread
from bgmatch_dask.numerics.rendering import UndersampleStyle
from bgmatch_dask.numerics.statistics import Property
from bgmatch_dask.pipeline.basis import settings_of, unit_basis
from bgmatch_dask.pipeline.context import RunContext
from bgmatch_dask.pipeline.photometric_ratio import read_ratio
from bgmatch_dask.pipeline.plan import masked_planes, stage_digest
from bgmatch_dask.pipeline.results import write_arrays
from bgmatch_dask.pipeline.stages import Ingested, Matching
from bgmatch_dask.pipeline.warp_offsets import WarpOffset, pack_warp_offsets, warp_offsets_path
from bgmatch_dask.store import Receipt, TractStore, open_store
from bgmatch_dask.warps.warp import Warp

__all__ = (
    "PerWarpResult",
    "PerWarpTask",
    "Unmatched",
    "match_patch",
    "per_warp",
    "per_warp_config",
    "visit_figures",
    "warp_rows",
)


@dataclass(frozen=True, slots=True)
class PerWarpTask:
    """Match the warps of one patch to that of the reference; each warp is read once."""

    url: str
    run: str
    patch: int
    reference: str
    visits: tuple[str, ...]
    """The others, in the order of the visit axis."""
    has_reference: bool
    """Whether the reference has a usable warp here; nothing is matched without."""
    config: PerWarpConfig
    digest: str

    @property
    def unit(self) -> str:
        """Key of the unit."""
        return str(self.patch)


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A warp that could not be matched, and why."""

    visit: str
    """Label of the visit."""
    patch: int
    """The patch."""
    code: str
    """Stable identifier of the reason."""
    detail: str
    """Sentence for people."""


@dataclass(frozen=True, slots=True)
class PerWarpResult:
    """What became of all warps."""

    matching: Matching
    """What matched warps and coadds are made of."""
    figures: Mapping[tuple[str, int], Mapping[str, float]]
    """Figures of every match, by visit and patch."""
    unmatched: tuple[Unmatched, ...]
    """Warps that have no offset, by patch and visit."""


def per_warp_config(config: RunConfig) -> PerWarpConfig:
    """Return the options of a match: its own section, and masks, clips and outliers of all."""
    section = config.per_warp
    return PerWarpConfig(
        use_polynomial=section.polynomial,
        order=section.order,
        mask=masked_planes(config),
        statistic=Property(section.statistic),
        undersample=UndersampleStyle[section.undersample],
        bin_size=section.cell_size,
        interpolation=InterpStyle[section.interpolation],
        n_sigma=config.background.n_sigma,
        n_iter=config.background.n_iter,
        weighting=Weighting(section.weighting),
        outlier_sigma=config.match.outlier_sigma,
    )


def match_patch(task: PerWarpTask) -> Receipt:
    """Carry out a `PerWarpTask`; warps that cannot be matched come back with their error."""
    start = time.perf_counter()
    store = open_store(task.url)
    box = store.spec.geometry.patches.outer_box(task.patch)
    offsets: dict[int, WarpOffset] = {}
    matches: dict[str, Any] = {}
    unmatched: list[dict[str, Any]] = []
    if task.has_reference:
        reference = _read_warp(store, task.reference, task.patch, box)
        for visit in task.visits:
            science = _read_warp(store, visit, task.patch, box)
            found = _match(reference, science, task.config)
            if isinstance(found, BgmatchError):
                failed = Unmatched(visit, task.patch, found.code, found.what)
                unmatched.append(asdict(failed))
                continue
            offset = WarpOffset(found.model, found.figures.fit_rms)
            offsets[store.spec.visit_index(visit)] = offset
            matches[visit] = _figures(reference, science, found, task.config)
    else:
        unmatched = [asdict(_without_reference(task, visit)) for visit in task.visits]
    # Written also when empty: offsets of an earlier reference must not outlive it.
    write_arrays(store, warp_offsets_path(task.run, task.patch), pack_warp_offsets(offsets))
    figures = {"matches": matches, "unmatched": unmatched}
    return Receipt("per_warp", task.unit, task.digest, time.perf_counter() - start, figures)


def _match(reference: Warp, science: Warp, config: PerWarpConfig) -> WarpMatch | BgmatchError:
    try:
        # One thread: the sums of a fit depend on how many share them.
        with one_thread():
            return match_warp(reference, science, config)
    except BgmatchError as error:
        return error


def _without_reference(task: PerWarpTask, visit: str) -> Unmatched:
    detail = f"The reference visit {task.reference} has no usable warp on patch {task.patch}"
    return Unmatched(visit, task.patch, "per-warp-reference-missing", detail)


def _read_warp(store: TractStore, visit: str, patch: int, box: Box) -> Warp:
    index = store.spec.visit_index(visit)
    image, variance = (store.read(name, index, patch, box) for name in ("image", "variance"))
    ratio = read_ratio(store, index, patch, box)
    if ratio is not None:
        image, variance = image * ratio, variance * ratio**2
    known = np.where(np.isnan(variance), np.float32(np.inf), variance)
    return Warp(box, image, known, store.read("mask", index, patch, box))


def _figures(
    reference: Warp, science: Warp, found: WarpMatch, config: PerWarpConfig
) -> dict[str, float]:
    bits = config.statistics.and_mask
    common = _good(reference, bits) & _good(science, bits)
    with np.errstate(invalid="ignore"):
        offset = found.warp.image - science.image
    return {
        "n_pixels": int(common.sum()),
        "fit_rms": found.figures.fit_rms,
        "matched_mse": found.figures.matched_mse,
        "difference_variance": found.figures.difference_variance,
        "coverage": found.figures.coverage,
        "offset_median": float(np.nanmedian(offset)),
    }


def _good(warp: Warp, bits: int) -> NDArray[np.bool_]:
    good: NDArray[np.bool_] = np.isfinite(warp.image) & ((warp.mask & bits) == 0)
    return good


def per_warp(run: RunContext, ingested: Ingested, reference: str) -> PerWarpResult:
    """Match every warp to the warp of the reference on its patch."""
    patches = range(run.plan.spec.geometry.patches.n_patches)
    tasks = [_task(run, ingested, patch, reference) for patch in patches]
    matched = [task for task in tasks if task.visits]
    receipts = run.run_units("per_warp", match_patch, matched, _settings(run.plan.config))
    unmatched = [Unmatched(**i) for r in receipts.values() for i in r.figures["unmatched"]]
    dropped: dict[int, tuple[str, ...]] = {}
    for item in unmatched:
        dropped[item.patch] = (*dropped.get(item.patch, ()), item.visit)
    figures = {
        (visit, int(unit)): found
        for unit, receipt in receipts.items()
        for visit, found in receipt.figures["matches"].items()
    }
    digest = stage_digest({unit: receipt.content for unit, receipt in receipts.items()}, reference)
    return PerWarpResult(
        Matching("per_warp", reference, digest, dropped), figures, tuple(unmatched)
    )


def _task(run: RunContext, ingested: Ingested, patch: int, reference: str) -> PerWarpTask:
    options = per_warp_config(run.plan.config)
    visits = ingested.visits_of(patch)
    others = tuple(visit for visit in visits if visit != reference)
    return PerWarpTask(
        url=run.plan.location.url,
        run=run.version,
        patch=patch,
        reference=reference,
        visits=others,
        has_reference=reference in visits,
        config=options,
        digest=unit_basis(
            _settings(run.plan.config), upstream=[ingested.digests_of(patch), reference, others]
        ),
    )


def _settings(config: RunConfig) -> dict[str, Any]:
    return settings_of(
        config,
        "per_warp",
        "background.mask",
        "background.n_sigma",
        "background.n_iter",
        "match.mask_detected",
        "match.outlier_sigma",
    )


def visit_figures(
    run: RunContext, ingested: Ingested, result: PerWarpResult, visit: str
) -> dict[str, Any]:
    """Return a visit's figures over its patches, each weighted with its pixels, and its gate.

    Parameters
    ----------
    run, ingested
        The run, and what the store holds.
    result
        From `per_warp`.
    visit
        Label of the visit.

    Returns
    -------
    dict
        Columns of the table of visits. ``fit_rms`` is the root of the mean square over patches,
        ``offset_median`` the median of the medians of the patches, not weighted, ``measured`` the
        share of the good pixels that lie in measured cells.
        A figure that is not finite warns, as the older task's gate does.
    """
    if visit == result.matching.reference:
        return {"status": "reference", "gate": "pass", "reasons": ()}
    found = [figures for (label, _), figures in result.figures.items() if label == visit]
    weights = [figures["n_pixels"] for figures in found]
    rms, mse, spread = (
        _mean([figures[name] ** power for figures in found], weights)
        for name, power in (("fit_rms", 2), ("matched_mse", 1), ("difference_variance", 1))
    )
    row = {
        "fit_rms": float(np.sqrt(rms)),
        "matched_mse": mse,
        "diff_variance": spread,
        "ratio": mse / spread if spread > 0 else float("nan"),
        "measured": _measured(ingested, result, visit),
        "offset_median": float(np.median([f["offset_median"] for f in found])) if found else None,
    }
    reasons = _visit_reasons(
        run.plan.config, row, [u for u in result.unmatched if u.visit == visit]
    )
    status = "matched" if found else "unmatched"
    return {"status": status, "gate": "warn" if reasons else "pass", "reasons": reasons, **row}


def _mean(values: list[float], weights: list[float]) -> float:
    total = float(sum(weights))
    if total <= 0:
        return float("nan")
    return float(np.dot(values, weights)) / total


def _measured(ingested: Ingested, result: PerWarpResult, visit: str) -> float:
    """Return the share of the visit's good pixels that lie in measured cells, on all patches."""
    patches = [patch for label, patch in ingested.usable if label == visit]
    weights = [float(ingested.receipts[f"{visit}/{p}"].figures["n_good"]) for p in patches]
    shares = [result.figures.get((visit, p), {}).get("coverage", 0.0) for p in patches]
    return _mean(shares, weights)


def warp_rows(config: RunConfig, result: PerWarpResult) -> list[dict[str, Any]]:
    """Return a row of the table of diagnostics for every matched warp, by visit and patch."""
    rows = []
    for visit, patch in sorted(result.figures):
        found = result.figures[visit, patch]
        mse, spread = found["matched_mse"], found["difference_variance"]
        row: dict[str, Any] = {
            "visit": visit,
            "patch": patch,
            "coverage": found["coverage"],
            "fit_rms": found["fit_rms"],
            "matched_mse": mse,
            "difference_variance": spread,
            "ratio": mse / spread if spread > 0 else float("nan"),
        }
        reasons = _exceeded(config, row)
        rows.append(row | {"gate": "warn" if reasons else "pass", "reasons": reasons})
    return rows


def _visit_reasons(
    config: RunConfig, row: Mapping[str, Any], unmatched: list[Unmatched]
) -> tuple[str, ...]:
    if row["offset_median"] is None:
        return tuple(dict.fromkeys(f"no patch is matched: {item.code}" for item in unmatched))
    missing = (f"patch {item.patch} is not matched: {item.code}" for item in unmatched)
    return (*_exceeded(config, row), *missing)


def _exceeded(config: RunConfig, row: Mapping[str, Any]) -> tuple[str, ...]:
    limits = (
        ("ratio", "ratio", config.match.gate_ratio),
        ("rms", "fit_rms", config.match.gate_rms),
    )
    return tuple(
        name
        for name, key, most in limits
        if most is not None and not (np.isfinite(row[key]) and row[key] <= most)
    )
