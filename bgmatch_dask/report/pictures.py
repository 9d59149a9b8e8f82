"""The pictures of a report: which there are, what they show, and their bytes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.errors import StoreError
from bgmatch_dask.report.explain import PatchSummary
from bgmatch_dask.report.mosaic import bin_mosaic, coadd_mosaics
from bgmatch_dask.store import TractStore, open_store

if TYPE_CHECKING:
    from bgmatch_dask.pipeline.engine import Engine
    from bgmatch_dask.report.offset_maps import OffsetMap

__all__ = ("Drawing", "Picture", "draw_pictures", "plan_pictures", "read_offset_maps")

_WIDE, _SMALL = 1100, 700
_OF_PAIR = ("before", "after", "sigma")
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


Drawing: TypeAlias = Callable[[], "list[Picture]"]
"""Draws pictures that belong together; a worker can do it. What draws is imported there."""


def plan_pictures(
    store: TractStore,
    run: str,
    summary: Mapping[str, Any],
    patches: Sequence[PatchSummary] = (),
) -> list[Drawing]:
    """Return the drawings of all pictures that the run has data for, in the order of the report.

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
    url, unit = store.location.url, str(summary["unit"])
    drawings: list[Drawing] = [partial(_coadds, url, run, unit), partial(_depth, url, run)]
    if summary["pairs"]:
        pairs = [tuple(_number(p.get(k)) for k in _OF_PAIR) for p in summary["pairs"]]
        drawings.append(partial(_overlaps, pairs, unit))
    if summary["solver"].get("method") != "per_warp":
        drawings += [partial(_offsets, url, run, unit), partial(_errors, url, run, unit)]
    if patches:
        drawings.append(partial(_residuals, _patch_values(store, patches), unit))
    changes = summary["solver"].get("convergence")
    if isinstance(changes, list) and changes:
        drawings.append(partial(_convergence, [_number(v) for v in changes], unit))
    if summary["timings"]:
        timings = {str(name): float(value or 0.0) for name, value in summary["timings"].items()}
        timings = dict(sorted(timings.items(), key=lambda item: _place_in_flow(item[0])))
        drawings.append(partial(_timings, timings))
    return drawings


def draw_pictures(drawings: Sequence[Drawing], engine: Engine | None = None) -> list[Picture]:
    """Return the pictures of all drawings, in their order.

    Parameters
    ----------
    drawings
        From `plan_pictures`.
    engine
        Where they are drawn; default: in this process.
    """
    numbered = list(enumerate(drawings))
    drawn = engine.map(_draw, numbered, "report") if engine else map(_draw, numbered)
    return [picture for _, pictures in sorted(drawn, key=_place) for picture in pictures]


def _draw(numbered: tuple[int, Drawing]) -> tuple[int, list[Picture]]:
    number, drawing = numbered
    return number, drawing()


def _place(numbered: tuple[int, list[Picture]]) -> int:
    return numbered[0]


def _coadds(url: str, run: str, unit: str) -> list[Picture]:
    from bgmatch_dask.report.figures import before_after

    mosaics = coadd_mosaics(open_store(url), run)
    if "matched" not in mosaics:
        return []
    matched = mosaics["matched"]
    return [
        Picture(
            "coadds",
            "Mosaics of the tract without and with background matching",
            f"Coadd of all visits over the tract, one block = {matched.step} × {matched.step} "
            "pixels. Both panels have the same stretch, chosen from the matched sky; white and "
            "black in the left one lie beyond it. Blue-grey: no data.",
            before_after(matched, mosaics.get("unmatched"), unit),
        )
    ]


def _depth(url: str, run: str) -> list[Picture]:
    from bgmatch_dask.report.figures import depth_map

    try:
        n_image = bin_mosaic(open_store(url), f"coadd/{run}_matched/nimage")
    except StoreError as error:
        if error.code != "array-missing":
            raise
        return []
    alt = "Map of the number of visits per pixel"
    caption = "Number of visits in each pixel of the matched coadd. Blue-grey: none."
    return [Picture("depth", alt, caption, depth_map(n_image), _SMALL)]


def _overlaps(pairs: Sequence[Sequence[float]], unit: str) -> list[Picture]:
    from bgmatch_dask.report.figures import difference_histogram

    before, after, sigma = zip(*pairs, strict=True)
    return [
        Picture(
            "overlaps",
            "Histograms of the mean differences of overlapping visits, before and after matching",
            f"Size of the clipped mean difference hub − visit of each measured pair "
            f"({len(pairs)}), over the pixels that both have. Further left is better.",
            difference_histogram(before, after, sigma, unit),
        )
    ]


def _patch_values(store: TractStore, patches: Sequence[PatchSummary]) -> NDArray[np.float64]:
    grid = store.spec.geometry.patches
    values = np.full((grid.ny, grid.nx), np.nan)
    for item in patches:
        values[divmod(item.patch, grid.nx)] = item.rms
    return values


def _residuals(values: NDArray[np.float64], unit: str) -> list[Picture]:
    from bgmatch_dask.report.figures import patch_map

    return [
        Picture(
            "patches",
            "Map of the residuals of the patches",
            "Rms of what is left of superpixels, over all visits of each patch, in the order of "
            "the pixels: x to the right, y up. Grey: nothing measured.",
            patch_map(values, unit),
            _SMALL,
        )
    ]


def _convergence(changes: Sequence[float], unit: str) -> list[Picture]:
    """Draw the rms change of the offsets in every iteration."""
    from bgmatch_dask.report.figures import convergence_figure

    return [
        Picture(
            "convergence",
            "Change of the offsets in every iteration",
            "Rms change of the offsets from one iteration of measuring and solving to the next.",
            convergence_figure(changes, unit),
            _SMALL,
        )
    ]


def _timings(timings: Mapping[str, float]) -> list[Picture]:
    from bgmatch_dask.report.figures import timings_bar

    return [
        Picture(
            "timings",
            "Bar chart of the wall time of each stage",
            "Wall time of each stage; a stage that found its work done takes next to none.",
            timings_bar(timings),
        )
    ]


def _offsets(url: str, run: str, unit: str) -> list[Picture]:
    from bgmatch_dask.report.offset_maps import offset_sheets

    sheets = list(offset_sheets(read_offset_maps(open_store(url), run), unit))
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


def _errors(url: str, run: str, unit: str) -> list[Picture]:
    from bgmatch_dask.report.offset_maps import sigma_sheets

    sheets = list(sigma_sheets(read_offset_maps(open_store(url), run), unit))
    return [
        Picture(
            "errors",
            f"Maps of the standard errors of the offsets, sheet {number} of {len(sheets)}",
            "Standard error of each offset, one scale for all visits; its square is added to the "
            f"variance of the matched warp. Sheet {number} of {len(sheets)}.",
            sheet,
        )
        for number, sheet in enumerate(sheets, 1)
    ]


def read_offset_maps(store: TractStore, run: str) -> list[OffsetMap]:
    """Return the offsets of all visits that have one, in the order of the visit axis."""
    try:
        values, variance, flags = (
            store.array(f"match/{run}/{name}") for name in ("offset", "offset_variance", "flags")
        )
    except StoreError:
        return []
    from bgmatch_dask.report.offset_maps import OffsetMap

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
