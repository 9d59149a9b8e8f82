"""Choice of the reference visit from the tract-wide superpixel sums alone; no pixel is read."""

from bgmatch_dask.background.reference.candidates import (
    Candidate,
    ReferenceField,
    ReferenceWeights,
    VisitFacts,
)
from bgmatch_dask.background.reference.choose import (
    ENTRY_POINTS,
    ReferenceChoice,
    choose_reference,
    chooser_names,
    find_chooser,
    named_visit,
)
from bgmatch_dask.background.reference.depth import depth
from bgmatch_dask.background.reference.legacy_cost import legacy_cost
from bgmatch_dask.background.reference.tract_cost import tract_cost

__all__ = (
    "ENTRY_POINTS",
    "Candidate",
    "ReferenceChoice",
    "ReferenceField",
    "ReferenceWeights",
    "VisitFacts",
    "choose_reference",
    "chooser_names",
    "depth",
    "find_chooser",
    "legacy_cost",
    "named_visit",
    "tract_cost",
)
