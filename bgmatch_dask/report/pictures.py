"""The pictures of a report: which there are, what they show, and their bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bgmatch_dask.errors import StoreError
from bgmatch_dask.report.explain import PatchSummary
from bgmatch_dask.report.figures import (
    before_after,
    convergence_figure,
    depth_map,
    difference_histogram,
    patch_map,
    timings_bar,
)
from bgmatch_dask.report.mosaic import Mosaic, bin_mosaic, coadd_mosaics
from bgmatch_dask.report.offset_maps import OffsetMap, offset_sheets, sigma_sheets
from bgmatch_dask.store import TractStore

__all__ = ("Picture", "draw_pictures", "read_offset_maps")

_WIDE, _SMALL = 1100, 700
_FLOW = (
    "plan",
    "ingest",
    "reference",
    "difference",
    "built",
    "solve",
    "cross-validation",
    "per_warp",
    "match",
    "coadd",
    "report",
)
"""The summary is stored with sorted keys, so that the order of the stages is lost in it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One figure of the report."""

    section: str
    """Section that it belongs to."""
    alt: str
    """What it shows, for those who cannot see it."""
    caption: str
    """How to read it."""
    png: bytes
    """The bytes of the image."""
    width: int = _WIDE
    """Width at 100 % zoom [CSS pixels]."""

    @property
    def uri(self) -> str:
        """The image as a data URI, so that the report is one file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def draw_pictures(
    store: TractStore,
    run: str,
    summary: Mapping[str, Any],
    patches: Sequence[PatchSummary] = (),
) -> list[Picture]:
    """Draw all pictures that the run has data for.

    Parameters
    ----------
    store
        The open store.
    run
        Name of the run.
    summary
        Its summary.
    patches
        Summaries of its patches.
    """
    unit = str(summary["unit"])
    pictures = _coadd_pictures(store, run, unit)
    if summary["pairs"]:
        pictures.append(_overlap_picture(summary["pairs"], unit))
    if summary["solver"].get("method") != "per_warp":
        pictures += _offset_pictures(read_offset_maps(store, run), unit)
    if patches:
        pictures.append(_patch_picture(store, patches, unit))
    pictures += _convergence_picture(summary["solver"].get("convergence"), unit)
    if summary["timings"]:
        timings = {str(name): float(value or 0.0) for name, value in summary["timings"].items()}
        timings = dict(sorted(timings.items(), key=lambda item: _place_in_flow(item[0])))
        pictures.append(
            Picture(
                "timings",
                "Bar chart of the wall time of each stage",
                "Wall time of each stage; a stage that found its work done takes next to none.",
                timings_bar(timings),
            )
        )
    return pictures


def _coadd_pictures(store: TractStore, run: str, unit: str) -> list[Picture]:
    mosaics = coadd_mosaics(store, run)
    if "matched" not in mosaics:
        return []
    matched = mosaics["matched"]
    pictures = [
        Picture(
            "coadds",
            "Mosaics of the tract without and with background matching",
            f"Coadd of all visits over the tract, one block = {matched.step} × {matched.step} "
            "pixels. Both panels have the same stretch, chosen from the matched sky; white and "
            "black in the left one lie beyond it. Blue-grey: no data.",
            before_after(matched, mosaics.get("unmatched"), unit),
        )
    ]
    n_image = _mosaic(store, f"coadd/{run}_matched/nimage")
    if n_image is not None:
        alt = "Map of the number of visits per pixel"
        caption = "Number of visits in each pixel of the matched coadd. Blue-grey: none."
        pictures.append(Picture("depth", alt, caption, depth_map(n_image), _SMALL))
    return pictures


def _mosaic(store: TractStore, path: str) -> Mosaic | None:
    try:
        return bin_mosaic(store, path)
    except StoreError as error:
        if error.code != "array-missing":
            raise
        return None


def _overlap_picture(pairs: Sequence[Mapping[str, Any]], unit: str) -> Picture:
    before, after, sigma = (
        [_number(p.get(k)) for p in pairs] for k in ("before", "after", "sigma")
    )
    return Picture(
        "overlaps",
        "Histograms of the mean differences of overlapping visits, before and after matching",
        f"Size of the clipped mean difference hub − visit of each measured pair "
        f"({len(pairs)}), over the pixels that both have. Further left is better.",
        difference_histogram(before, after, sigma, unit),
    )


def _patch_picture(store: TractStore, patches: Sequence[PatchSummary], unit: str) -> Picture:
    grid = store.spec.geometry.patches
    values = np.full((grid.ny, grid.nx), np.nan)
    for item in patches:
        values[divmod(item.patch, grid.nx)] = item.rms
    return Picture(
        "patches",
        "Map of the residuals of the patches",
        "Rms of what is left of superpixels, over all visits of each patch, in the order of the "
        "pixels: x to the right, y up. Grey: nothing measured.",
        patch_map(values, unit),
        _SMALL,
    )


def _convergence_picture(changes: object, unit: str) -> list[Picture]:
    """Draw the rms change of the offsets in every iteration, where the solver tells it."""
    known = [_number(v) for v in changes] if isinstance(changes, list) else []
    if not known:
        return []
    return [
        Picture(
            "convergence",
            "Change of the offsets in every iteration",
            "Rms change of the offsets from one iteration of measuring and solving to the next.",
            convergence_figure(known, unit),
            _SMALL,
        )
    ]


def _offset_pictures(maps: Sequence[OffsetMap], unit: str) -> list[Picture]:
    sheets = list(offset_sheets(maps, unit))
    errors = list(sigma_sheets(maps, unit))
    return [
        Picture(
            "offsets",
            f"Maps of the offsets of the visits, sheet {number} of {len(sheets)}",
            "What is added to each visit, on the superpixels that it covers. The median is in "
            "the title and taken from the map, so that colours show the shape; one scale for "
            f"all visits. Sheet {number} of {len(sheets)}.",
            sheet,
        )
        for number, sheet in enumerate(sheets, 1)
    ] + [
        Picture(
            "errors",
            f"Maps of the standard errors of the offsets, sheet {number} of {len(errors)}",
            "Standard error of each offset, one scale for all visits; its square is added to the "
            f"variance of the matched warp. Sheet {number} of {len(errors)}.",
            sheet,
        )
        for number, sheet in enumerate(errors, 1)
    ]


def read_offset_maps(store: TractStore, run: str) -> list[OffsetMap]:
    """Return the offsets of all visits that have one, in the order of the visit axis."""
    try:
        values, variance, flags = (
            store.array(f"match/{run}/{name}") for name in ("offset", "offset_variance", "flags")
        )
    except StoreError:
        return []
    counts = store.array(f"superpixels/{store.spec.kind}/count")
    maps = []
    for index, visit in enumerate(store.spec.visits[: values.shape[0]]):
        offset = np.asarray(values[index], np.float64)
        if np.isfinite(offset).any():
            covered = np.isfinite(offset)
            # Of a version with other superpixels the store no longer knows what was covered.
            if counts.shape[1:] == offset.shape:
                covered = np.asarray(counts[index], np.float64) > 0
            sigma = np.sqrt(np.asarray(variance[index], np.float64))
            bits = np.asarray(flags[index], np.uint8)
            maps.append(OffsetMap(visit, offset, bits, covered, sigma))
    return maps


def _place_in_flow(stage: str) -> int:
    return _FLOW.index(stage) if stage in _FLOW else len(_FLOW)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
