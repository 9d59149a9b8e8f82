"""The table of visits: what is known of each beyond its pixels, as ``visits.json``."""

from __future__ import annotations

from collections.abc import Mapping

from bgmatch_dask.errors import StoreError
from bgmatch_dask.store.location import Location

__all__ = ("read_visits", "write_visits")

_NAME = "visits.json"
_SCHEMA = 1

Facts = Mapping[str, float | str]


def read_visits(location: Location) -> dict[str, dict[str, float | str]]:
    """Return what is known of each visit, by label; empty for a store without a table.

    Raises
    ------
    StoreError
        ``store-corrupt`` when the table is not what was written.
    """
    if not location.exists(_NAME):
        return {}
    try:
        data = location.read_json(_NAME)
        table = {str(visit): dict(facts) for visit, facts in data["visits"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _corrupt(location, str(error)) from error
    if data.get("schema") != _SCHEMA:
        raise _corrupt(location, f"its schema is {data.get('schema')}")
    return table


def _corrupt(location: Location, why: str) -> StoreError:
    return StoreError(
        "store-corrupt",
        f"{_NAME} cannot be read: {why}",
        where=location.url,
        fix=f"Delete {_NAME} and run again.",
    )


def write_visits(location: Location, visits: Mapping[str, Facts]) -> None:
    """Write the table; visits that it already holds and that are not given stay."""
    known = read_visits(location)
    table = known | {visit: dict(facts) for visit, facts in visits.items()}
    if table != known:
        location.write_json(_NAME, {"schema": _SCHEMA, "visits": table})
