"""A table with one row per visit: facts that the images do not carry."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from bgmatch_dask.errors import InputError

__all__ = ("VISIT_COLUMNS", "read_visit_table")

VISIT_COLUMNS = ("exposure_time", "fwhm")
"""Columns that are read beside ``visit``; each may be missing, and so may each value."""


def read_visit_table(path: str | Path) -> dict[str, dict[str, float]]:
    """Read a CSV table with the columns ``visit``, ``exposure_time`` [s] and ``fwhm``.

    Parameters
    ----------
    path
        The file. Lines that begin with ``#`` are comments.

    Returns
    -------
    dict
        By visit label: the known facts by column name, all of them positive.

    Raises
    ------
    InputError
        ``visit-table`` when it cannot be read, has no column ``visit``, or a value is no
        positive number.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, f"it cannot be read: {error}") from error
    rows = csv.DictReader(line for line in lines if line.strip() and not line.startswith("#"))
    if "visit" not in (rows.fieldnames or ()):
        raise _wrong(path, "it has no column 'visit'")
    return {str(row["visit"]).strip(): _facts(path, row) for row in rows}


def _facts(path: str | Path, row: Mapping[str, str | None]) -> dict[str, float]:
    facts = {}
    for name in VISIT_COLUMNS:
        text = (row.get(name) or "").strip()
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise _wrong(path, f"{name} of visit {row['visit']} is {text!r}, no positive number")
        facts[name] = value
    return facts


def _wrong(path: str | Path, why: str) -> InputError:
    return InputError(
        "visit-table",
        f"The table of visits cannot be used: {why}",
        where=str(path),
        fix=f"Give a CSV file with the columns visit, {', '.join(VISIT_COLUMNS)}.",
    )
