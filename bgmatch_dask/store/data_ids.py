"""Butler's names of the units of a store, as ``data_ids.json``: they lead outputs back to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bgmatch_dask.errors import StoreError
from bgmatch_dask.store.location import Location

__all__ = ("read_data_ids", "write_data_ids")

_NAME = "data_ids.json"
_SCHEMA = 1

DataId = Mapping[str, int | str]


def write_data_ids(location: Location, units: Iterable[tuple[str, int, DataId]]) -> None:
    """Note the data ID of every unit that has one; those that are known already stay.

    Parameters
    ----------
    location
        The store.
    units
        (visit label, patch of the store, data ID).
    """
    known = read_data_ids(location)
    table = known | {f"{visit}/{patch}": dict(data_id) for visit, patch, data_id in units}
    if table != known:
        location.write_json(_NAME, {"schema": _SCHEMA, "units": table})


def read_data_ids(location: Location) -> dict[str, dict[str, int | str]]:
    """Return the data IDs by unit (``visit/patch``); empty where inputs were no datasets.

    Raises
    ------
    StoreError
        ``store-corrupt`` when the table is not what was written.
    """
    if not location.exists(_NAME):
        return {}
    try:
        data = location.read_json(_NAME)
        return {str(unit): dict(data_id) for unit, data_id in data["units"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            "store-corrupt",
            f"{_NAME} cannot be read: {error}",
            where=location.url,
            fix=f"Delete {_NAME} and run again.",
        ) from error
