"""The choosers by name, and the choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TypeAlias

import numpy as np

from bgmatch_dask.background.reference.candidates import Candidate, ReferenceField
from bgmatch_dask.background.reference.depth import depth
from bgmatch_dask.background.reference.legacy_cost import legacy_cost
from bgmatch_dask.background.reference.tract_cost import tract_cost
from bgmatch_dask.background.visits import Visit, find_visit
from bgmatch_dask.errors import ConfigError, MatchError

__all__ = (
    "ENTRY_POINTS",
    "ReferenceChoice",
    "choose_reference",
    "chooser_names",
    "find_chooser",
    "named_visit",
)

Chooser: TypeAlias = Callable[[ReferenceField], tuple[Candidate, ...]]
"""Gives every visit its cost; the lowest is chosen."""

ENTRY_POINTS = "bgmatch_dask.reference_choosers"
"""Group of entry points in which other packages register choosers."""

_CHOOSERS: Mapping[str, Chooser] = {
    "tract_cost": tract_cost,
    "legacy_cost": legacy_cost,
    "depth": depth,
}
_BY_LABEL = "visit="


@dataclass(frozen=True, slots=True)
class ReferenceChoice:
    """The reference visit and how it compares."""

    visit: Visit
    """Label of the reference visit."""
    candidates: tuple[Candidate, ...]
    """All visits, by visit."""
    forced: bool
    """Whether the user named the reference."""
    chooser: str = "tract_cost"
    """Name of the chooser that made the costs."""

    @property
    def cost_order(self) -> tuple[Visit, ...]:
        """All visits, lowest cost first; ties by visit."""
        # The sort is stable and the candidates are in order of visit.
        return tuple(c.visit for c in sorted(self.candidates, key=lambda c: c.cost))


def named_visit(name: str) -> str | None:
    """Return the label in a chooser's name of the form ``visit=LABEL``, else None."""
    return name.removeprefix(_BY_LABEL) if name.startswith(_BY_LABEL) else None


def chooser_names() -> tuple[str, ...]:
    """Return the names of all choosers: ours, then those of other packages."""
    return (*_CHOOSERS, *sorted(set(_registered()) - set(_CHOOSERS)))


def find_chooser(name: str) -> Chooser:
    """Return a chooser by its name; ``visit=LABEL`` computes the default cost.

    Raises
    ------
    ConfigError
        ``chooser-unknown``, or ``chooser-broken`` when the package that registers it cannot
        be loaded.
    """
    if named_visit(name) is not None:
        return tract_cost
    if name in _CHOOSERS:
        return _CHOOSERS[name]
    found = _registered().get(name)
    if found is None:
        raise ConfigError(
            "chooser-unknown",
            f"There is no chooser of the reference {name!r}",
            where="reference.chooser",
            fix=f"Choose one of {', '.join(chooser_names())}, or {_BY_LABEL}LABEL.",
        )
    try:
        chooser: Chooser = found.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            "chooser-broken",
            f"The chooser {name!r} cannot be loaded from {found.value}: {error}",
            where="reference.chooser",
            fix="Mend or remove the package that registers it.",
        ) from error
    return chooser


def _registered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def choose_reference(
    seen: ReferenceField, chooser: str = "tract_cost", *, visit: Visit | None = None
) -> ReferenceChoice:
    """Choose the visit whose background all others are brought to.

    Parameters
    ----------
    seen
        Sums, grid and facts of the visits.
    chooser
        Name of the chooser, or ``visit=LABEL``.
    visit
        Reference that the user wants; it wins over the chooser. The costs are computed all
        the same.

    Returns
    -------
    ReferenceChoice
        The visit of lowest cost (ties: lowest visit) or the wanted one, and all candidates.

    Raises
    ------
    MatchError
        ``reference-unknown`` when the wanted visit is not there, ``reference-none`` when no
        visit has a measured superpixel.
    ConfigError
        As `find_chooser`.
    """
    candidates = find_chooser(chooser)(seen)
    wanted = visit if visit is not None else named_visit(chooser)
    if wanted is not None:
        return ReferenceChoice(find_visit(wanted, seen.sums), candidates, True, chooser)
    best = min(candidates, key=lambda c: c.cost, default=None)
    if best is None or not np.isfinite(best.cost):
        raise MatchError(
            "reference-none",
            "No visit of this tract has a measured superpixel",
            fix="Check the mask planes and background.min_frac.",
        )
    return ReferenceChoice(best.visit, candidates, False, chooser)
