"""The diagnostics of a run as a table file: ECSV always, Parquet where pyarrow is installed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import MaskedColumn, Table

from bgmatch_dask.errors import ConfigError
from bgmatch_dask.pipeline.diagnostics import COLUMNS, Column
from bgmatch_dask.report.fits_files import whole_file

__all__ = ("diagnostics_table", "write_table")

_EMPTY = {"text": "", "integer": 0, "number": np.nan}
_TYPES = {"text": str, "integer": np.int64, "number": np.float64}


def diagnostics_table(rows: Sequence[Mapping[str, Any]], unit: str) -> Table:
    """Return rows of diagnostics as a table with units and descriptions; masked where unknown.

    Parameters
    ----------
    rows
        From `bgmatch_dask.pipeline.diagnostics.load_diagnostics`.
    unit
        Unit of the image.
    """
    table = Table()
    for column in COLUMNS:
        values = [_cell(row.get(column.name), column) for row in rows]
        table[column.name] = MaskedColumn(
            np.array([_EMPTY[column.kind] if v is None else v for v in values]).astype(
                _TYPES[column.kind]
            ),
            mask=[v is None for v in values],
            description=column.meaning,
        )
        if column.power:
            # Text, because units of surveys ("DN", "counts") are not all known to astropy.
            table[column.name].info.meta = {"image_unit": _unit(unit, column.power)}
    return table


def _cell(value: Any, column: Column) -> Any:  # noqa: ANN401
    if column.kind == "text" and isinstance(value, list | tuple):
        return "; ".join(str(item) for item in value)
    return value


def _unit(unit: str, power: int) -> str:
    return unit if power == 1 else f"{unit}**{power}"


def write_table(table: Table, path: str | os.PathLike[str]) -> None:
    """Write a table in the format of the file's name: ``.ecsv`` or ``.parquet``.

    The file appears whole or not at all; the same table gives the same bytes.

    Raises
    ------
    ConfigError
        ``table-format`` for other names, ``pyarrow-missing`` for Parquet without pyarrow.
    """
    path = Path(path)
    if path.suffix not in {".ecsv", ".parquet"}:
        raise ConfigError(
            "table-format", "The format of the table is not known", where=str(path),
            fix="Give a name that ends in .ecsv or .parquet.",
        )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        if path.suffix == ".ecsv":
            table.write(partial, format="ascii.ecsv", overwrite=True)
        else:
            _write_parquet(table, partial)


def _write_parquet(table: Table, path: Path) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            "pyarrow-missing", "Parquet needs the package pyarrow", where=str(path),
            fix="Install it, or give a name that ends in .ecsv.",
        ) from error  # fmt: skip
    fields, arrays = [], []
    for name in table.colnames:
        column = table[name]
        metadata = {"description": column.description, **(column.info.meta or {})}
        kind = {"U": pa.string(), "i": pa.int64(), "f": pa.float64()}
        values = [
            None if hidden else v for v, hidden in zip(column.tolist(), column.mask, strict=True)
        ]
        fields.append(pa.field(name, kind[column.dtype.kind], metadata=metadata))
        arrays.append(pa.array(values, kind[column.dtype.kind]))
    parquet.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), path)
