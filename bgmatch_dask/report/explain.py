"""What the report says about the worst match and about every patch, from the diagnostics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ("Neighbour", "PatchSummary", "WorstMatch", "summarise_patches", "worst_match")

Row = Mapping[str, Any]

_MOST_NEIGHBOURS = 8
_STANDS_OUT = 3.0
"""A figure this many times the usual one is worth a sentence."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One overlap of the worst visit."""

    visit: str
    """The other visit."""
    n_superpixels: int
    """Superpixels that both have."""
    before: float | None
    """Mean difference before matching, the other one − this one [image unit]."""
    after: float | None
    """The same after matching."""
    sigma: float | None
    """Photon noise of the mean."""
    flagged: bool
    """Whether the other visit did not pass the gate."""


@dataclass(frozen=True, slots=True)
class WorstMatch:
    """The visit whose match is worst, and why."""

    visit: str
    """Its label."""
    reasons: tuple[str, ...]
    """Sentences, plain text."""
    neighbours: tuple[Neighbour, ...]
    """Its overlaps, the least well matched first."""


@dataclass(frozen=True, slots=True)
class PatchSummary:
    """All warps of one patch."""

    patch: int
    """The patch."""
    n_warps: int
    """Warps with a measured match."""
    n_flagged: int
    """Warps beyond a limit of the gate."""
    rms: float
    """Root mean square of their residuals, left out where there are such [image unit]."""
    worst: str
    """Visit with the largest residual."""
    worst_rms: float
    """Its residual [image unit]."""
    coverage: float
    """Mean measured share of their superpixels."""


def worst_match(summary: Row, visits: Sequence[Row], warps: Sequence[Row]) -> WorstMatch | None:
    """Return the visit with the largest residual and what explains it; None when none has any.

    Parameters
    ----------
    summary
        Summary of the run.
    visits, warps
        Rows of its diagnostics.
    """
    known = [row for row in visits if _residual(row) is not None]
    known = [row for row in known if row["visit"] != summary["reference"]["visit"]]
    if not known:
        return None
    worst = max(known, key=lambda row: _residual(row) or 0.0)
    flagged = {row["visit"] for row in visits if row["gate"] != "pass"}
    neighbours = _neighbours(summary["pairs"], str(worst["visit"]), flagged)
    unit = str(summary["unit"])
    reasons = [
        _size(worst, known, unit),
        *_overlap(worst, neighbours, unit),
        *_noise(worst, known),
        *_place(worst, warps, unit),
    ]
    return WorstMatch(str(worst["visit"]), tuple(reasons), neighbours[:_MOST_NEIGHBOURS])


def _residual(row: Row) -> float | None:
    for name in ("cv_rms", "fit_rms"):
        value = row.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return None


def _neighbours(pairs: Sequence[Row], visit: str, flagged: set[str]) -> tuple[Neighbour, ...]:
    found = []
    for pair in pairs:
        ends = str(pair["hub"]), str(pair["visit"])
        if visit not in ends:
            continue
        sign = 1.0 if ends[1] == visit else -1.0
        other = ends[0] if ends[1] == visit else ends[1]
        before, after = (
            sign * pair[n] if isinstance(pair.get(n), int | float) else None
            for n in ("before", "after")
        )
        found.append(
            Neighbour(
                other, pair["n_superpixels"], before, after, pair.get("sigma"), other in flagged
            )
        )
    return tuple(sorted(found, key=lambda n: -abs(n.after or 0.0)))


def _size(worst: Row, known: Sequence[Row], unit: str) -> str:
    own = _residual(worst) or 0.0
    usual = float(np.median([_residual(row) or 0.0 for row in known]))
    what = "Superpixels left out of its fit are" if worst.get("cv_rms") else "Its superpixels are"
    return (
        f"{what} off by {own:.3g} {unit} (rms); the median over all visits is {usual:.3g} {unit}."
    )


def _overlap(worst: Row, neighbours: Sequence[Neighbour], unit: str) -> list[str]:
    share = worst.get("coverage")
    out = []
    if neighbours and isinstance(share, int | float):
        most = max(neighbours, key=lambda n: n.n_superpixels)
        out.append(
            f"It is tied to {len(neighbours)} visit(s), which measure {100 * share:.0f} % of its "
            f"superpixels; the largest overlap has {most.n_superpixels}. "
            "The rest is interpolated or continued."
        )
    if worst.get("disconnected"):
        out.append("No chain of overlaps leads to the reference: its level is arbitrary.")
    known = [n for n in neighbours if n.after is not None]
    if len(known) >= 2:
        others = math.sqrt(sum((n.after or 0.0) ** 2 for n in known[1:]) / (len(known) - 1))
        first = known[0]
        if abs(first.after or 0.0) > _STANDS_OUT * others:
            also = ", which did not pass the gate either" if first.flagged else ""
            out.append(
                f"One overlap stands out: with {first.visit}{also}, {first.n_superpixels} "
                f"superpixel(s) disagree by {first.after:.3g} {unit} after matching, the others by "
                f"{others:.2g} {unit} (rms). No smooth offset reconciles them; look at both images "
                "there for structure that does not cancel: a ghost, a bright star or nebula, a "
                "jump of the background."
            )
    return out


def _noise(worst: Row, known: Sequence[Row]) -> list[str]:
    values = [row["difference_variance"] for row in known if row.get("difference_variance")]
    own = worst.get("difference_variance")
    if not values or not own or own < _STANDS_OUT * float(np.median(values)):
        return []
    factor = own / float(np.median(values))
    return [
        f"The pixels of its differences scatter {factor:.2g} × as much (variance) as those of the "
        "median visit: bright sources or a nebula in its overlaps."
    ]


def _place(worst: Row, warps: Sequence[Row], unit: str) -> list[str]:
    own = [row for row in warps if row["visit"] == worst["visit"] and _residual(row) is not None]
    if len(own) < 2:
        return []
    most = max(own, key=lambda row: _residual(row) or 0.0)
    return [f"Most of it lies on patch {most['patch']} ({_residual(most):.3g} {unit})."]


def summarise_patches(warps: Sequence[Row]) -> list[PatchSummary]:
    """Return one summary per patch with a measured warp, the worst first."""
    by_patch: dict[int, list[Row]] = {}
    for row in warps:
        if _residual(row) is not None:
            by_patch.setdefault(int(row["patch"]), []).append(row)
    out = []
    for patch, rows in by_patch.items():
        worst = max(rows, key=lambda row: _residual(row) or 0.0)
        squares = [(_residual(row) or 0.0) ** 2 for row in rows]
        shares = [row["coverage"] for row in rows if row.get("coverage") is not None]
        out.append(
            PatchSummary(
                patch,
                len(rows),
                sum(row["gate"] != "pass" for row in rows),
                math.sqrt(float(np.mean(squares))),
                str(worst["visit"]),
                math.sqrt(max(squares)),
                float(np.mean(shares)) if shares else math.nan,
            )
        )
    return sorted(out, key=lambda item: (-item.rms, item.patch))
