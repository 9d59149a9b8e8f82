"""Measuring, collecting and judging deviations."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

BARS = {"image": 1e-6, "statistic": 1e-9, "interpolation": 1e-10, "exact": 0.0}
"""Largest deviation allowed: images relative to max|image|, the others element by element."""

IMAGE, STATISTIC, INTERPOLATION, EXACT = BARS

ERROR_KINDS = {
    "cells-empty": "InvalidParameterError",
    "chebyshev-no-cells": "RuntimeError",
    "chebyshev-order-too-high": "InvalidParameterError",
    "chebyshev-orders-differ": "InvalidParameterError",
    "box-outside": "LengthError",
    "clip-invalid": "InvalidParameterError",
    "error-mode-unknown": "InvalidParameterError",
    "grid-empty": "LengthError",
    "grid-undersampled": "InvalidParameterError",
    "image-empty": "InvalidParameterError",
    "interp-knots-not-increasing": "RuntimeError",
    "interp-no-points": "InvalidParameterError",
    "interp-style-out-of-range": "OutOfRangeError",
    "interp-style-unknown": "InvalidParameterError",
    "interp-too-few-points": "OutOfRangeError",
}
"""Our error codes, and the upstream exception that each of them stands for."""


@dataclass
class Deviations:
    """Deviations of one file."""

    worst: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)
    calls: dict[str, list[int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def compare(self, kind, quantity, label, got, expected):
        """Note the deviation of ``got``, and a problem when it is above the bar."""
        got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        if got.shape != expected.shape:
            self.problems.append(f"{label}: shape {got.shape}, expected {expected.shape}")
            return
        odd = ~np.isfinite(expected)
        if not np.array_equal(got[odd], expected[odd], equal_nan=True):
            self.problems.append(f"{label}: NaN or infinity in other places than expected")
            return
        if odd.all():
            return
        value = _deviation(quantity, got[~odd], expected[~odd])
        # A NaN of ours where a number is expected must not pass the comparison below.
        if not value <= BARS[quantity]:
            self.problems.append(f"{label}: {quantity} deviates by {value:.3g}")
        if not value <= self.worst.get((kind, quantity), (-1.0, ""))[0]:
            self.worst[kind, quantity] = (value, label)

    def call(self, kind, label, result, function):
        """Call, check that it fails exactly when it must, and return its value or None."""
        from bgmatch_dask.errors import BgmatchError

        count = self.calls.setdefault(kind, [0, 0])
        count[0] += 1
        try:
            value = function()
        except BgmatchError as error:
            if result["ok"]:
                self.problems.append(f"{label}: failed, but must not: {error}")
                return None
            expected = result["error_type"].rpartition("::")[2]
            got = ERROR_KINDS.get(error.code, f"unknown code {error.code}")
            if got != expected:
                self.problems.append(f"{label}: {error.code} is {got}, expected {expected}")
            count[1] += 1
            return None
        if not result["ok"]:
            self.problems.append(f"{label}: did not fail, expected {result['error']}")
            return None
        return value

    def equal(self, label, got, expected):
        """Note a problem when two plain values differ."""
        if got != expected:
            self.problems.append(f"{label}: {got!r}, expected {expected!r}")

    def judge(self):
        """Fail the test when there was any problem."""
        if self.problems:
            shown = "\n".join(self.problems[:20])
            pytest.fail(f"{len(self.problems)} problems:\n{shown}", pytrace=False)


def _deviation(quantity, got, expected):
    difference = np.abs(got - expected)
    if quantity == IMAGE:
        scale = np.abs(expected).max()
        return float(difference.max() / scale) if scale > 0 else float(difference.max())
    if quantity == EXACT:
        return float(difference.max())
    # Numbers below 1e-300 are compared absolutely: a relative deviation from zero means nothing.
    return float((difference / np.maximum(np.abs(expected), 1e-300)).max())
