"""A synthetic tract: one static sky seen by visits with very different backgrounds."""

from __future__ import annotations

from bgmatch_dask.warps.simulation.config import SimulationConfig
from bgmatch_dask.warps.simulation.run import SimulationSummary, simulate_tract
from bgmatch_dask.warps.simulation.truth import (
    SimulationTruth,
    draw_truth,
    load_truth,
    true_diffuse,
    true_sky,
    true_sources,
)

__all__ = (
    "SimulationConfig",
    "SimulationSummary",
    "SimulationTruth",
    "draw_truth",
    "load_truth",
    "simulate_tract",
    "true_diffuse",
    "true_sky",
    "true_sources",
)
