"""The older generation of background matching: each warp alone is matched to a reference warp.

Source: LSST ``MatchBackgroundsTask`` of 2012 to 2024, and its consumer in ``AssembleCoaddTask``
until 2017. Its faults are corrected unless ``upstream=True`` is given; what each correction is
stands where it is made. One cannot be corrected: patches are matched one by one, and nothing makes
the offsets of neighbours agree (fault L-10).
"""

from bgmatch_dask.background.per_warp.config import PerWarpConfig
from bgmatch_dask.background.per_warp.consumer import (
    GateDecision,
    WarpGate,
    add_match_noise,
    weigh_match,
)
from bgmatch_dask.background.per_warp.match import (
    PerWarpMatches,
    WarpFigures,
    WarpMatch,
    match_warp,
    match_warps,
)
from bgmatch_dask.background.per_warp.model import WarpModel
from bgmatch_dask.background.per_warp.reference import (
    ReferenceChoice,
    choose_reference_warp,
    reference_costs,
)

__all__ = (
    "GateDecision",
    "PerWarpConfig",
    "PerWarpMatches",
    "ReferenceChoice",
    "WarpFigures",
    "WarpGate",
    "WarpMatch",
    "WarpModel",
    "add_match_noise",
    "choose_reference_warp",
    "match_warp",
    "match_warps",
    "reference_costs",
    "weigh_match",
)
