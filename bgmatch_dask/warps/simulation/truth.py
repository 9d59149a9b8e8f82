"""The truth of a simulated tract, saved beside it and evaluated on demand."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.errors import InputError
from bgmatch_dask.geometry import Box
from bgmatch_dask.warps.simulation.config import SimulationConfig
from bgmatch_dask.warps.simulation.diffuse import DiffuseModel, draw_diffuse
from bgmatch_dask.warps.simulation.footprint import Footprint
from bgmatch_dask.warps.simulation.sky import SkyModel, Trail
from bgmatch_dask.warps.simulation.sources import draw_catalogue, render_sources
from bgmatch_dask.warps.simulation.visits import VisitTruth, best_reference, draw_visits

__all__ = (
    "TRUTH_FILE",
    "SimulationTruth",
    "draw_truth",
    "load_truth",
    "save_truth",
    "true_diffuse",
    "true_sky",
    "true_sources",
)

TRUTH_FILE = "truth.json"
"""Name of the record in the directory of a simulation."""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class SimulationTruth:
    """All that went into a simulated tract."""

    config: SimulationConfig
    """What was asked for."""
    diffuse: DiffuseModel
    """Large galaxy and cirrus."""
    visits: tuple[VisitTruth, ...]
    """The visits, in the order of their labels."""
    best_reference: int
    """Label of the visit with the flattest, darkest sky and the largest coverage."""

    def visit(self, label: int | str) -> VisitTruth:
        """Return a visit by its label.

        Raises
        ------
        InputError
            ``visit-unknown`` when there is no such visit.
        """
        for visit in self.visits:
            if str(visit.visit) == str(label):
                return visit
        known = ", ".join(str(visit.visit) for visit in self.visits)
        raise InputError("visit-unknown", f"There is no visit {label}", fix=f"Known: {known}.")


def draw_truth(config: SimulationConfig) -> SimulationTruth:
    """Return the truth that a configuration stands for; no pixel is made."""
    return SimulationTruth(
        config, draw_diffuse(config), draw_visits(config), best_reference(config)
    )


def true_sky(truth: SimulationTruth, visit: int | str, box: Box) -> NDArray[np.float64]:
    """Return the visit's own background on ``box`` [nJy], without the static sky."""
    return truth.visit(visit).sky.evaluate(box)


def true_diffuse(truth: SimulationTruth, box: Box) -> NDArray[np.float64]:
    """Return the diffuse light on ``box`` [nJy], the same in all visits."""
    return truth.diffuse.evaluate(box)


def true_sources(truth: SimulationTruth, visit: int | str, box: Box) -> NDArray[np.float64]:
    """Return the stars and galaxies on ``box`` at the seeing of a visit [nJy]."""
    return render_sources(draw_catalogue(truth.config), truth.visit(visit).psf_fwhm, box)


def save_truth(truth: SimulationTruth, out_dir: str | os.PathLike[str]) -> Path:
    """Write ``truth.json`` into a directory and return its path."""
    path = Path(out_dir) / TRUTH_FILE
    record = {"version": _VERSION, **asdict(truth)}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def load_truth(out_dir: str | os.PathLike[str]) -> SimulationTruth:
    """Read ``truth.json`` from the directory of a simulation.

    Raises
    ------
    InputError
        ``path-unreadable`` or ``truth-unreadable``.
    """
    path = Path(out_dir) / TRUTH_FILE
    try:
        return _truth(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(
            "path-unreadable",
            f"The truth cannot be opened: {error.strerror or error}",
            where=str(path),
            fix="Give the directory that `simulate_tract` wrote.",
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            "truth-unreadable",
            f"Not a record of a simulation by this version: {error}",
            where=str(path),
            fix="Simulate the tract again.",
        ) from error


def _truth(record: Mapping[str, Any]) -> SimulationTruth:
    if record["version"] != _VERSION:
        raise ValueError(f"version {record['version']}")
    return SimulationTruth(
        config=SimulationConfig(**_tuples(record["config"])),
        diffuse=DiffuseModel(**record["diffuse"]),
        visits=tuple(_visit(visit) for visit in record["visits"]),
        best_reference=record["best_reference"],
    )


def _visit(record: Mapping[str, Any]) -> VisitTruth:
    parts = {
        "sky": SkyModel(**_tuples(record["sky"])),
        "footprint": Footprint(**record["footprint"]),
        "trails": tuple(Trail(**trail) for trail in record["trails"]),
    }
    return VisitTruth(**{**record, **parts})


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    """Undo what JSON does to tuples."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
    }
