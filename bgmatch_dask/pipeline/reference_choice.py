"""What the configuration says of the reference: checked before any work, then carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bgmatch_dask.background.reference import (
    ReferenceChoice,
    ReferenceField,
    ReferenceWeights,
    VisitFacts,
    choose_reference,
    find_chooser,
    named_visit,
)
from bgmatch_dask.background.superpixels import SuperpixelSums
from bgmatch_dask.background.visits import Visit, find_visit
from bgmatch_dask.config import ReferenceConfig, RunConfig
from bgmatch_dask.geometry import SuperpixelGrid
from bgmatch_dask.warps.visit_table import read_visit_table

__all__ = ("check_reference", "choose")


def check_reference(config: ReferenceConfig, visits: Sequence[Visit]) -> None:
    """Refuse a chooser, a visit or a table of visits that cannot be used.

    Parameters
    ----------
    config
        How the reference is chosen.
    visits
        Visits of the tract.

    Raises
    ------
    MatchError
        ``reference-unknown`` when the named visit is not among the visits.
    ConfigError
        ``chooser-unknown`` or ``chooser-broken``.
    InputError
        ``visit-table``.
    """
    find_chooser(config.chooser)
    wanted = config.visit if config.visit is not None else named_visit(config.chooser)
    if wanted is not None:
        find_visit(wanted, visits)
    _facts(config, {})


def choose(
    config: RunConfig,
    sums: Mapping[Visit, SuperpixelSums],
    grid: SuperpixelGrid,
    unit: str,
    known: Mapping[str, Mapping[str, float | str]] | None = None,
) -> ReferenceChoice:
    """Choose the reference as the configuration says.

    Parameters
    ----------
    config
        The configuration.
    sums
        Tract-wide sums of every visit.
    grid
        Superpixels of the tract.
    unit
        Unit of the images: those in janskys share one flux scale.
    known
        What the store knows of the visits; a table of visits takes the place of all of it,
        because its widths may be in another unit.
    """
    wishes = config.reference
    seen = ReferenceField(
        sums=sums,
        grid=grid,
        weights=ReferenceWeights(
            chi2=wishes.weight_chi2,
            variance=wishes.weight_variance,
            coverage=wishes.weight_coverage,
            level=wishes.weight_level,
            depth=wishes.weight_depth,
        ),
        min_fraction=config.background.min_frac,
        facts=_facts(wishes, known or {}),
        calibrated="Jy" in unit,
    )
    return choose_reference(seen, wishes.chooser, visit=wishes.visit)


def _facts(
    config: ReferenceConfig, known: Mapping[str, Mapping[str, float | str]]
) -> dict[Visit, VisitFacts]:
    if config.visit_table is not None:
        table = read_visit_table(config.visit_table)
        return {visit: VisitFacts(**facts) for visit, facts in table.items()}
    return {
        visit: VisitFacts(_number(facts.get("exposure_time")), _number(facts.get("fwhm")))
        for visit, facts in known.items()
    }


def _number(value: float | str | None) -> float | None:
    return None if isinstance(value, str) else value
