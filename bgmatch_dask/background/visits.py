"""Labels of visits: their order, and finding the one that a user named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from bgmatch_dask.errors import MatchError

__all__ = ("Visit", "find_visit", "sorted_visits", "visit_key")

Visit: TypeAlias = int | str
"""A visit label: an integer id, or text where visits have names."""


def visit_key(visit: Visit) -> tuple[int, int, str]:
    """Return the sort key of a visit: numbers (also written as text) by value, then names."""
    text = str(visit)
    if text.isascii() and text.lstrip("-").isdigit():
        return (0, int(text), text)
    return (1, 0, text)


def sorted_visits(visits: Iterable[Visit]) -> tuple[Visit, ...]:
    """Return the visits in the one order that everything here is done in."""
    return tuple(sorted(visits, key=visit_key))


def find_visit(visit: Visit, visits: Iterable[Visit]) -> Visit:
    """Return the label among ``visits`` that a user means by ``visit``.

    An id may be given as a number or as text; 0 and ``"0"`` are ids like any other.

    Raises
    ------
    MatchError
        ``reference-unknown`` when there is no such visit.
    """
    known = sorted_visits(visits)
    for candidate in known:
        if str(candidate) == str(visit):
            return candidate
    shown = ", ".join(map(str, known[:20])) + (" …" if len(known) > 20 else "")
    raise MatchError(
        "reference-unknown",
        f"The reference visit {visit!r} is not among the visits of this tract",
        fix=f"Visits: {shown or 'none'}.",
    )
