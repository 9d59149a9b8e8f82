"""The diagnostics of a run: a row for every visit and every warp, and the gate that judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.diagnostics import VisitDiagnostics
from bgmatch_dask.config import MatchConfig
from bgmatch_dask.errors import MatchError, StoreError
from bgmatch_dask.geometry import PatchGrid, SuperpixelGrid
from bgmatch_dask.pipeline.results import plain_json
from bgmatch_dask.store import Location

__all__ = (
    "COLUMNS",
    "Column",
    "Row",
    "diagnostic_row",
    "judge",
    "load_diagnostics",
    "patch_of_superpixels",
    "save_diagnostics",
)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table."""

    name: str
    """Its name."""
    kind: str
    """``text``, ``integer`` or ``number``."""
    power: int
    """Unit: this power of the unit of the image; 0 for none."""
    meaning: str
    """What it holds."""


COLUMNS = (
    Column("visit", "text", 0, "label of the visit"),
    Column("patch", "integer", 0, "the patch; none: the whole tract"),
    Column("gate", "text", 0, "pass, warn or drop"),
    Column("reasons", "text", 0, "why the gate did not pass"),
    Column("n_superpixels", "integer", 0, "measured superpixels, over all pairs"),
    Column("coverage", "number", 0, "share of the superpixels with a measured difference"),
    Column("fit_rms", "number", 1, "rms residual of superpixel means after matching"),
    Column("fit_rms_weighted", "number", 1, "the same, weighted as in the solution"),
    Column("cv_rms", "number", 1, "rms residual of superpixels left out of the fit"),
    Column("rms_before", "number", 1, "rms superpixel difference before matching"),
    Column("matched_mse", "number", 2, "mean squared matched difference of pixels"),
    Column("difference_variance", "number", 2, "mean variance of the pixels of the differences"),
    Column("ratio", "number", 0, "matched_mse / difference_variance; 1: only noise is left"),
    Column("chi2", "number", 0, "reduced chi squared of the residuals against photon noise"),
    Column("freedom", "number", 0, "its degrees of freedom"),
    Column("measured", "number", 0, "share of superpixels whose offset is measured"),
    Column("interpolated", "number", 0, "share whose offset is interpolated"),
    Column("extrapolated", "number", 0, "share whose offset is extrapolated"),
    Column("disconnected", "number", 0, "share that nothing ties to the reference"),
)
"""Columns of the table, in order."""


def patch_of_superpixels(grid: SuperpixelGrid, patches: PatchGrid) -> NDArray[np.int64]:
    """Return the patch whose inner box holds the centre of each superpixel ``(sy, sx)``."""
    ny, nx = grid.shape
    # The last superpixels may reach beyond the tract: the centre is that of their part inside.
    y = np.minimum(np.arange(ny) * grid.bin_y + grid.bin_y // 2, grid.box.height - 1)
    x = np.minimum(np.arange(nx) * grid.bin_x + grid.bin_x // 2, grid.box.width - 1)
    rows, columns = y // patches.inner_height, x // patches.inner_width
    return np.asarray(rows[:, np.newaxis] * patches.nx + columns, np.int64)


def diagnostic_row(found: VisitDiagnostics, patch: int | None) -> Row:
    """Return one row of the table."""
    row: Row = {c.name: getattr(found, c.name, None) for c in COLUMNS}
    return row | {"visit": str(found.visit), "patch": patch} | dict(found.flag_shares)


def judge(
    rows: Sequence[Row], config: MatchConfig, reference: str, *, kind: str = "visit"
) -> frozenset[tuple[str, int | None]]:
    """Apply the policy ``match.gate`` to rows that exceed a limit; rows change in place.

    Parameters
    ----------
    rows
        Rows with ``visit``, ``gate``, ``reasons``, perhaps ``patch`` and ``status``. Only the
        reasons ``ratio`` and ``rms`` are judged: what is tied to nothing has no match to judge.
    config
        The policy and its limits.
    reference
        The reference is never dropped: it is what the others are judged against.
    kind
        What a row is, for the message.

    Returns
    -------
    frozenset
        (visit, patch) of what the coadd leaves out.

    Raises
    ------
    MatchError
        ``gate-failed`` under the policy ``fail``.
    """
    bad = [
        row
        for row in rows
        if {"ratio", "rms"} & set(row.get("reasons") or ()) and row["visit"] != reference
    ]
    if not bad or config.gate == "warn":
        return frozenset()
    if config.gate == "fail":
        raise _failed(bad, config, kind)
    for row in bad:
        row["gate"] = "drop"
        if "status" in row:
            row["status"] = "dropped"
    return frozenset((row["visit"], row.get("patch")) for row in bad)


def _failed(bad: Sequence[Row], config: MatchConfig, kind: str) -> MatchError:
    names = ", ".join(_name(row) for row in bad[:5]) + (" …" if len(bad) > 5 else "")
    rms = "" if config.gate_rms is None else f" and of the fit RMS {config.gate_rms}"
    return MatchError(
        "gate-failed",
        f"{len(bad)} {kind}(s) exceed the limits: of the ratio {config.gate_ratio}{rms}",
        where=names,
        fix="Leave them out of the inputs, or set match.gate to drop or warn.",
    )


def _name(row: Row) -> str:
    patch = "" if row.get("patch") is None else f" on patch {row['patch']}"
    return f"{row['visit']}{patch} (ratio {_short(row.get('ratio'))}, {_short(row.get('fit_rms'))})"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save_diagnostics(
    location: Location, run: str, unit: str, visits: Sequence[Row], warps: Sequence[Row]
) -> None:
    """Store the tables of a run: one of visits, one of warps (visit, patch)."""
    content = {"unit": unit, "visits": visits, "warps": warps}
    location.write_json(_path(run), plain_json(content))


def load_diagnostics(location: Location, run: str) -> Mapping[str, Any]:
    """Return ``unit``, ``visits`` and ``warps`` of a finished run; rows have all `COLUMNS`.

    Raises
    ------
    StoreError
        ``run-missing`` when the run is not finished.
    """
    try:
        content: Mapping[str, Any] = location.read_json(_path(run))
    except StoreError as error:
        raise StoreError(
            "run-missing",
            f"The store has no diagnostics of a run {run!r}",
            where=location.url,
            fix="Run the job again; it continues where it stopped.",
        ) from error
    return content


def _path(run: str) -> str:
    return f"match/{run}/diagnostics.json"
