"""The chooser of LDM-151: the visit that goes deepest for point sources, with coverage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bgmatch_dask.background.reference.candidates import (
    Candidate,
    ReferenceField,
    VisitFacts,
    bounded,
    measure_candidates,
    typical,
    with_cost,
)

__all__ = ("depth",)


def depth(seen: ReferenceField) -> tuple[Candidate, ...]:
    """Return every visit's cost as the reference, by visit.

    Notes
    -----
    Depth is ``T² / (FWHM² σ²)`` (LDM-151, "Build Background Reference"), where σ² is the pixel
    variance and T the scale of the image: where images share one flux scale, σ² already
    contains T, which is then 1; else T is the exposure time. A fact that is not known is taken
    to be the median of the visits that have it (1 if none has), and is listed as missing.
    ``1 / depth`` enters as in `bounded`.
    """
    raw = measure_candidates(seen)
    times = {c.visit: _fact(seen, c, "exposure_time") for c in raw}
    widths = {c.visit: _fact(seen, c, "fwhm") for c in raw}
    usual_time = typical(times.values()) or 1.0
    usual_width = typical(widths.values()) or 1.0
    found = []
    for c in raw:
        scale = 1.0 if seen.calibrated else _known(times[c.visit], usual_time)
        width = _known(widths[c.visit], usual_width)
        missing = ["fwhm"] if np.isnan(widths[c.visit]) else []
        if not seen.calibrated and np.isnan(times[c.visit]):
            missing.insert(0, "exposure_time")
        value = scale**2 / (width**2 * c.variance) if c.variance > 0 else np.nan
        found.append(replace(c, depth=value, missing=tuple(missing)))
    usable = [c for c in found if c.n_superpixels > 0]
    usual = typical(1.0 / c.depth for c in usable)
    coverage = max((c.coverage for c in usable), default=0.0)
    return tuple(
        with_cost(
            c,
            {
                "depth": bounded(1.0 / c.depth, usual),
                "coverage": 1.0 - c.coverage / coverage if coverage > 0 else 1.0,
            },
            seen.weights,
        )
        for c in found
    )


def _fact(seen: ReferenceField, candidate: Candidate, name: str) -> float:
    value = getattr(seen.facts.get(candidate.visit, VisitFacts()), name)
    return float(value) if value is not None and value > 0 else float("nan")


def _known(value: float, usual: float) -> float:
    return usual if np.isnan(value) else value
