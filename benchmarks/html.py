"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.results import Check

__all__ = ("write_html",)

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")
_MOST_HISTORY = 12


def write_html(record: Mapping[str, Any], history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the plots of a record and write its report.

    Parameters
    ----------
    record
        What `benchmarks.command.run_parts` returned.
    history
        Earlier records and this one, oldest first.
    path
        File to write.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    environment.filters["plot"] = lambda plot: Markup(_svg(plot))  # noqa: S704  Drawn by us.
    checks = [(part["title"], c) for part in record["parts"].values() for c in part["checks"]]
    text = environment.get_template("report.html").render(
        record=record,
        checks=[(title, c, _limit(c)) for title, c in checks],
        met=sum(c["met"] for _, c in checks if c["judged"]),
        judged=sum(c["judged"] for _, c in checks),
        history=_history(record, history),
        commits=[r["commit"][:7] or "?" for r in _same_size(record, history)],
    )
    path.write_text(text, encoding="utf-8")


def _limit(check: Mapping[str, Any]) -> str:
    known = Check(**{key: check[key] for key in ("claim", "value", "limit", "at_most", "unit")})
    return f"{'≤' if known.at_most else '≥'} {known.limit:g} {_unit(known.unit)}"


def _unit(unit: str) -> str:
    return "×" if unit == "x" else unit


def _same_size(
    record: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    machine = record["machine"]["processor"]
    same = [
        r for r in history if r["size"] == record["size"] and r["machine"]["processor"] == machine
    ]
    return same[-_MOST_HISTORY:]


def _history(
    record: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str, list[float | None]]]:
    """Return the ratios of this record and what they were before, on this kind of machine."""
    records = _same_size(record, history)
    tables = [
        {f["key"]: f["value"] for part in r["parts"].values() for f in part["figures"]}
        for r in records
    ]
    figures = [f for part in record["parts"].values() for f in part["figures"] if f["relative"]]
    return [(f["key"], _unit(f["unit"]), [t.get(f["key"]) for t in tables]) for f in figures]


def _cell(value: Any) -> str:  # noqa: ANN401
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value != value:
        return "–"
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _svg(plot: Mapping[str, Any]) -> str:
    """Draw a plot as SVG without fonts or scripts."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "bench", "font.family": "DejaVu Sans"}
    with mpl.rc_context(style):
        bars = plot["kind"] == "bars"
        names = _names(plot)
        height = 1.1 + 0.3 * len(names) * (0.6 + 0.4 * len(plot["series"])) if bars else 3.6
        figure = Figure(figsize=(7.6, height), layout="constrained")
        axes = figure.add_subplot()
        (_draw_bars if bars else _draw_lines)(axes, plot)
        axes.set_xlabel(plot["x"])
        axes.set_ylabel(plot["y"])
        axes.grid(True, axis="x" if bars else "both", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if len(plot["series"]) > 1:
            axes.legend(frameon=False, fontsize=8)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _names(plot: Mapping[str, Any]) -> list[str]:
    found: dict[str, None] = {}
    for points in plot["series"].values():
        found.update(dict.fromkeys(str(x) for x, _ in points))
    return list(found)


def _draw_bars(axes: Any, plot: Mapping[str, Any]) -> None:  # noqa: ANN401
    names = _names(plot)
    series = plot["series"]
    thick = 0.8 / len(series)
    for k, (label, points) in enumerate(series.items()):
        places = [names.index(str(x)) + (k - 0.5 * (len(series) - 1)) * thick for x, _ in points]
        values = [value for _, value in points]
        ours = [
            _COLOURS[2] if str(x).startswith("bgmatch,") else _COLOURS[k % 8] for x, _ in points
        ]
        axes.barh(places, values, thick * 0.92, color=ours, label=label)
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                f" {_cell(value)}", (value, place), va="center", fontsize=8, color="#444444"
            )
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    if plot["logarithmic"]:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    if plot["level"] is not None:
        axes.axvline(plot["level"], color="#888888", linestyle="--", linewidth=1)


def _draw_lines(axes: Any, plot: Mapping[str, Any]) -> None:  # noqa: ANN401
    for k, (label, points) in enumerate(plot["series"].items()):
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(xs, ys, marker="o", markersize=4, color=_COLOURS[k % 8], label=label)
    if plot["logarithmic"]:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.1 * max(y for points in plot["series"].values() for _, y in points))
    if all(float(x).is_integer() for points in plot["series"].values() for x, _ in points):
        axes.xaxis.get_major_locator().set_params(integer=True)
    if plot["level"] is not None:
        axes.axhline(plot["level"], color="#888888", linestyle="--", linewidth=1)
