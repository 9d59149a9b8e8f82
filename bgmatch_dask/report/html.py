"""The report of a run: one HTML file that needs nothing else and runs no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bgmatch_dask.pipeline.collector import loaded_kept
from bgmatch_dask.pipeline.diagnostics import load_diagnostics
from bgmatch_dask.pipeline.results import load_summary
from bgmatch_dask.report.explain import summarise_patches, worst_match
from bgmatch_dask.report.pictures import Picture, draw_pictures, plan_pictures
from bgmatch_dask.store import Location, open_store
from bgmatch_dask.store.versions import current_version

if TYPE_CHECKING:
    from bgmatch_dask.pipeline.engine import Engine

__all__ = ("render_report", "write_report")

_TEMPLATES = Path(__file__).parent / "templates"
_QUANTITIES = ("chi2", "depth", "variance", "level")
_MOST_REJECTED, _MOST_CANDIDATES = 200, 20
"""Rows beyond these are counted, not listed."""
_WORST_PAIRS = 5
_MOST_PATCHES = 10


@dataclass(frozen=True, slots=True)
class Fact:
    """One headline figure, as text."""

    name: str
    """What it is."""
    value: str
    """The figure with its unit."""
    note: str = ""
    """What to know about it."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table of visits."""

    key: str
    """Field of the summary."""
    title: str
    """Head of the column."""
    numeric: bool = True
    """Whether it is set flush right."""


_COLUMNS = (
    Column("visit", "visit", numeric=False),
    Column("status", "status", numeric=False),
    Column("sky_level", "sky"),
    Column("sky_sigma", "sky σ"),
    Column("offset_median", "offset"),
    Column("coverage", "coverage"),
    Column("n_patches", "patches"),
    Column("measured", "measured"),
    Column("fit_rms", "fit RMS"),
    Column("cv_rms", "left-out RMS"),
    Column("matched_mse", "matched MSE"),
    Column("diff_variance", "diff. variance"),
    Column("ratio", "ratio"),
    Column("chi2", "χ²"),
    Column("gate", "gate", numeric=False),
)


def write_report(location: Location, run: str, engine: Engine | None = None) -> str:
    """Draw and store the report of a finished run.

    Parameters
    ----------
    location
        Place of the store.
    run
        Name of the run.
    engine
        Where the pictures are drawn; default: in this process.

    Returns
    -------
    str
        Path or URL of ``runs/<version>/report.html``.

    Raises
    ------
    StoreError
        ``run-missing`` when the run is not finished; ``store-write`` when the store refuses.
    """
    run = current_version(location, run)
    summary = load_summary(location, run)
    store = open_store(location.url)
    diagnostics = load_diagnostics(location, run)
    patches = summarise_patches(diagnostics["warps"])
    with loaded_kept():
        pictures = draw_pictures(plan_pictures(store, run, summary, patches), engine)
    name = f"runs/{run}/report.html"
    location.write_bytes(name, render_report(summary, pictures, diagnostics).encode())
    return location.child(name)


def render_report(
    summary: Mapping[str, Any],
    pictures: Sequence[Picture],
    diagnostics: Mapping[str, Any] | None = None,
) -> str:
    """Return the report as HTML.

    Parameters
    ----------
    summary
        Summary of the run. All of its text is escaped, wherever it came from.
    pictures
        Figures from `bgmatch_dask.report.pictures.draw_pictures`.
    diagnostics
        Tables from `bgmatch_dask.pipeline.diagnostics.load_diagnostics`, if there are any.
    """
    visits, warps = (list((diagnostics or {}).get(name, ())) for name in ("visits", "warps"))
    patches = summarise_patches(warps)
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(num=_num, percent=_percent)
    candidates = sorted(summary["reference"]["candidates"], key=_cost)
    rejected, unmatched = summary["rejected"], summary.get("unmatched", [])
    return environment.get_template("report.html").render(
        s=summary,
        # The style sheet is ours; a style element must not hold escaped quotes.
        css=_css(),
        facts=_facts(summary),
        attention=_attention(summary),
        pictures=pictures,
        tile=worst_match(summary, visits, warps),
        patches=patches[:_MOST_PATCHES],
        patches_hidden=max(len(patches) - _MOST_PATCHES, 0),
        worst=_worst_pairs(summary["pairs"]),
        columns=_COLUMNS,
        visits=_visit_rows(summary["visits"]),
        candidates=candidates[:_MOST_CANDIDATES],
        quantities=[n for n in _QUANTITIES if any(c.get(n) is not None for c in candidates)],
        terms=list(dict.fromkeys(t for c in candidates for t in c.get("terms", ()))),
        facts_missing=any(c.get("missing") for c in candidates),
        candidates_hidden=max(len(candidates) - _MOST_CANDIDATES, 0),
        rejected=rejected[:_MOST_REJECTED],
        rejected_hidden=max(len(rejected) - _MOST_REJECTED, 0),
        unmatched=unmatched[:_MOST_REJECTED],
        unmatched_hidden=max(len(unmatched) - _MOST_REJECTED, 0),
        solver={k: v for k, v in summary["solver"].items() if k != "convergence"},
        config_yaml=yaml.safe_dump(summary["config"], sort_keys=False, allow_unicode=True),
    )


def _css() -> Markup:
    return Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8"))  # noqa: S704


def _facts(summary: Mapping[str, Any]) -> list[Fact]:
    visits, overlaps = summary["visits"], summary["overlaps"]
    matched = sum(v["status"] in {"matched", "reference"} for v in visits)
    warned = sum(v.get("gate") in {"warn", "drop"} for v in visits)
    patches = summary["plan"]["patches"]
    before, after = overlaps["rms_before"], overlaps["rms_after"]
    gain = f", {_times(before / after)} × smaller" if before and after else ""
    seconds = sum(float(value or 0.0) for value in summary["timings"].values())
    return [
        Fact("Tract", str(summary["tract"]), f"{patches['nx']} × {patches['ny']} patches"),
        Fact("Band", str(summary["band"]) or "–", f"images in {summary['unit']}"),
        Fact("Reference visit", str(summary["reference"]["visit"])),
        Fact("Visits matched", f"{matched} of {len(visits)}", "the reference is one of them"),
        Fact(
            "Rms of overlap differences",
            f"{_num(before, 3)} → {_num(after, 3)} {summary['unit']}",
            f"pairs of visits: {overlaps['pairs']}{gain}",
        ),
        *_left_out(summary),
        Fact("Gate", f"{warned} warned", f"of {len(visits)} visits"),
        Fact("Inputs rejected", str(len(summary["rejected"]))),
        Fact("Wall time", f"{seconds:.3g} s", f"{summary['plan']['units']} units (visit, patch)"),
    ]


def _left_out(summary: Mapping[str, Any]) -> list[Fact]:
    """Return the figure of overlaps that the solution had not seen, where it was measured."""
    found = summary.get("cross_validation")
    if not found:
        return []
    untied = f"; {found['untied']} that nothing else ties are not predicted"
    return [
        Fact(
            "Rms of overlaps left out",
            f"{_num(found['rms_before'], 3)} → {_num(found['rms'], 3)} {summary['unit']}",
            f"{found['pairs']} pairs, each predicted from the others"
            f"{untied if found['untied'] else ''}",
        )
    ]


def _attention(summary: Mapping[str, Any]) -> list[str]:
    limits = summary["config"].get("match", {})
    lines = [
        f"Visit {row['visit']}: {'; '.join(_reasons(row, limits))}."
        for row in summary["visits"]
        if row["status"] in {"disconnected", "dropped"} or row.get("gate") in {"warn", "drop"}
    ]
    if summary["rejected"]:
        lines.append(f"{len(summary['rejected'])} input(s) were rejected; see below.")
    return lines


def _reasons(row: Mapping[str, Any], limits: Mapping[str, Any]) -> list[str]:
    """Say why a visit needs a look; reasons that are not known here are shown as they are."""
    sentences = {
        "dropped": "left out of the matched coadd (match.gate)",
        "disconnected": "no chain of overlaps ties it to the reference, so it was left out of "
        "the matched coadd",
        "ratio": f"matched MSE / difference variance is {_num(row.get('ratio'))}, the limit is "
        f"{limits.get('gate_ratio')} (match.gate_ratio)",
        "rms": f"fit RMS is {_num(row.get('fit_rms'))}, the limit is "
        f"{limits.get('gate_rms')} (match.gate_rms)",
    }
    reasons = [str(reason) for reason in row.get("reasons") or ()]
    if row["status"] in {"disconnected", "dropped"} and row["status"] not in reasons:
        reasons.insert(0, str(row["status"]))
    return [sentences.get(reason, reason) for reason in reasons] or ["its match is doubtful"]


def _visit_rows(visits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for visit in visits:
        cells = {column.key: visit.get(column.key) for column in _COLUMNS}
        for share in ("coverage", "measured"):
            cells[share] = _percent(cells[share])
        usual = visit["status"] in {"matched", "reference"} and visit.get("gate") == "pass"
        rows.append({"cells": cells, "flagged": not usual})
    return rows


def _worst_pairs(pairs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    known = [pair for pair in pairs if isinstance(pair.get("after"), int | float)]
    return sorted(known, key=lambda pair: -abs(pair["after"]))[:_WORST_PAIRS]


def _cost(candidate: Mapping[str, Any]) -> float:
    cost = candidate.get("cost")
    return float(cost) if isinstance(cost, int | float) else math.inf


def _num(value: object, digits: int = 4) -> str:
    """Return a number for people; text stays text (the template escapes it)."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:#.{digits}g}".rstrip(".").replace("-", "−")
    return str(value)


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 100 else f"{factor:.2g}"


def _percent(value: object) -> str:
    if isinstance(value, int | float) and math.isfinite(value):
        return f"{100.0 * value:.1f} %"
    return "–"
