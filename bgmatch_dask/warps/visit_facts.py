"""Facts about a visit that its images do not carry but their headers do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

__all__ = ("FACTS", "Facts", "combine_facts", "facts_of")

Facts = tuple[tuple[str, float | str], ...]

FACTS: Mapping[str, str] = {
    "exposure_time": "s",
    "mjd": "d",
    "fwhm": "arcsec",
    "physical_filter": "",
}
"""Name of each fact and its unit. ``mjd`` is in the time scale of the header."""

_EXPOSURE = ("EXPTIME", "EXPOSURE")
_MJD = ("MJD-AVG", "MJD-OBS", "MJD")
_DATE = ("DATE-AVG", "DATE-OBS")
_FWHM = ("SEEING", "FWHM")
_FILTER = ("FILTER",)
_EPOCH = datetime(1858, 11, 17, tzinfo=UTC)
_LONGEST_NAME = 64


def facts_of(*headers: Mapping[str, Any]) -> Facts:
    """Return what headers tell of the visit; the first header that has a card is believed.

    ``EXPTIME`` or ``EXPOSURE`` [s], ``MJD-AVG`` or the like, else ``DATE-AVG`` or ``DATE-OBS``,
    ``SEEING`` or ``FWHM`` [arcsec], and ``FILTER``. Values that make no sense are passed over.
    """
    found: dict[str, float | str | None] = {
        "exposure_time": _positive(headers, _EXPOSURE),
        "mjd": _positive(headers, _MJD) or _date(headers),
        "fwhm": _positive(headers, _FWHM),
        "physical_filter": _name(headers),
    }
    return tuple((name, value) for name, value in found.items() if value is not None)


def combine_facts(facts: Iterable[Facts]) -> dict[str, float | str]:
    """Return one fact per name of the files of a visit: the median, or the first name.

    Parameters
    ----------
    facts
        Facts of the files, in a fixed order.
    """
    known: dict[str, list[float | str]] = {}
    for file in facts:
        for name, value in file:
            known.setdefault(name, []).append(value)
    return {name: _middle(values) for name, values in sorted(known.items())}


def _middle(values: list[float | str]) -> float | str:
    numbers = [value for value in values if not isinstance(value, str)]
    return float(np.median(numbers)) if numbers else values[0]


def _positive(headers: Iterable[Mapping[str, Any]], keys: tuple[str, ...]) -> float | None:
    for value in _cards(headers, keys):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if math.isfinite(value) and 0 < value < 1e9:
            return float(value)
    return None


def _date(headers: Iterable[Mapping[str, Any]]) -> float | None:
    for value in _cards(headers, _DATE):
        try:
            moment = datetime.fromisoformat(str(value)).replace(tzinfo=UTC)
        except ValueError:
            continue
        return (moment - _EPOCH).total_seconds() / 86400.0
    return None


def _name(headers: Iterable[Mapping[str, Any]]) -> str | None:
    for value in _cards(headers, _FILTER):
        text = str(value).strip() if isinstance(value, str) else ""
        if text and text.isprintable() and len(text) <= _LONGEST_NAME:
            return text
    return None


def _cards(headers: Iterable[Mapping[str, Any]], keys: tuple[str, ...]) -> Iterable[Any]:
    for header in headers:
        yield from (header[key] for key in keys if key in header)
