"""The pictures of a report: which there are, what they show, and their bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bgmatch_dask.errors import StoreError
from bgmatch_dask.report.figures import (
    before_after,
    depth_map,
    difference_histogram,
    timings_bar,
)
from bgmatch_dask.report.mosaic import Mosaic, bin_mosaic
from bgmatch_dask.report.offset_maps import OffsetMap, offset_sheets
from bgmatch_dask.store import TractStore

__all__ = ("Picture", "draw_pictures", "read_offset_maps")

_WIDE, _SMALL = 1100, 700
_FLOW = (
    "plan",
    "ingest",
    "reference",
    "difference",
    "solve",
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


def draw_pictures(store: TractStore, run: str, summary: Mapping[str, Any]) -> list[Picture]:
    """Draw all pictures that the run has data for.

    Parameters
    ----------
    store
        The open store.
    run
        Name of the run.
    summary
        Its summary.
    """
    unit = str(summary["unit"])
    pictures = _coadd_pictures(store, run, unit)
    if summary["pairs"]:
        pictures.append(_overlap_picture(summary["pairs"], unit))
    if summary["solver"].get("method") != "per_warp":
        pictures += _offset_pictures(read_offset_maps(store, run), unit)
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
    matched = _mosaic(store, f"coadd/{run}_matched/image")
    if matched is None:
        return []
    unmatched = _mosaic(store, f"coadd/{run}_unmatched/image")
    pictures = [
        Picture(
            "coadds",
            "Mosaics of the tract without and with background matching",
            f"Coadd of all visits over the tract, one block = {matched.step} × {matched.step} "
            "pixels. Both panels have the same stretch, chosen from the matched sky; white and "
            "black in the left one lie beyond it. Blue-grey: no data.",
            before_after(matched, unmatched, unit),
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


def _offset_pictures(maps: Sequence[OffsetMap], unit: str) -> list[Picture]:
    sheets = list(offset_sheets(maps, unit))
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
    ]


def read_offset_maps(store: TractStore, run: str) -> list[OffsetMap]:
    """Return the offsets of all visits that have one, in the order of the visit axis."""
    try:
        values, flags = (store.array(f"match/{run}/{name}") for name in ("offset", "flags"))
    except StoreError:
        return []
    counts = store.array(f"superpixels/{store.spec.kind}/count")
    maps = []
    for index, visit in enumerate(store.spec.visits):
        offset = np.asarray(values[index], np.float64)
        if np.isfinite(offset).any():
            covered = np.asarray(counts[index], np.float64) > 0
            maps.append(OffsetMap(visit, offset, np.asarray(flags[index], np.uint8), covered))
    return maps


def _place_in_flow(stage: str) -> int:
    return _FLOW.index(stage) if stage in _FLOW else len(_FLOW)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
