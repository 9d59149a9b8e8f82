"""Two records side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ("compare",)

_MARGIN = 0.10
"""Changes below this share are noise."""


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per figure that both records have.

    A figure has changed when it moved by more than ten per cent *and* out of the spread of the
    other record. Seconds and MB of two machines are not compared, only ratios. Records of two
    sizes have nothing in common.
    """
    if old["size"] != new["size"]:
        return []
    same = _machine(old) == _machine(new)
    before, after = _figures(old), _figures(new)
    rows = []
    for key in sorted(before.keys() & after.keys()):
        a, b = before[key], after[key]
        if not same and not b["relative"]:
            continue
        rows.append(
            {
                "key": key,
                "old": a["value"],
                "new": b["value"],
                "unit": b["unit"],
                "verdict": _word(a, b),
            }
        )
    return rows


def _machine(record: Mapping[str, Any]) -> tuple[Any, ...]:
    machine = record["machine"]
    return machine["processor"], machine["cpus"], machine["memory_gb"]


def _figures(record: Mapping[str, Any]) -> dict[str, Any]:
    return {f["key"]: f for part in record["parts"].values() for f in part["figures"]}


def _word(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    a, b = old["value"], new["value"]
    if not a or abs(b - a) <= _MARGIN * abs(a) or old["low"] <= b <= old["high"]:
        return "same"
    better = (b < a) == (new["better"] == "lower")
    return f"{'better' if better else 'WORSE'} ({b / a:.2f} ×)"
