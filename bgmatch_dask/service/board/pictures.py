"""Small pictures of a run while it goes on: offset maps, and the mosaic before and after."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bgmatch_dask.errors import StoreError
from bgmatch_dask.pipeline.events import Picture
from bgmatch_dask.pipeline.resume import stored_config
from bgmatch_dask.pipeline.thumbnails import TractBlocks
from bgmatch_dask.pipeline.warp_offsets import load_patch_offsets
from bgmatch_dask.store import TractStore

__all__ = ("MosaicPainter", "offset_pictures")

_MOST_BLOCKS = 96
"""Pixels on the long side of an offset map."""
_NO_DATA = (213, 221, 232)
_COLOURS = ((0x00, 0x72, 0xB2), (0xF7, 0xF7, 0xF7), (0xD5, 0x5E, 0x00))
"""Of the lowest, the middle and the highest offset (red, green, blue)."""
_SCALE = np.linspace(0.0, 1.0, 96)
_SHADES = 64
"""Grey levels of a mosaic; more would make noise and bytes, not detail."""


def offset_pictures(store: TractStore, run: str) -> Iterator[Picture]:
    """Yield the offset map of every visit that has one: the level as text, the shape as colours.

    All visits share one scale, which shows 98 % of all superpixels; it is the first picture.
    """
    method = stored_config(store.location, run).match.method
    maps = (_maps_of_warps if method == "per_warp" else _maps_of_solution)(store, run)
    levels = {index: float(np.nanmedian(values)) for index, values in maps.items()}
    sizes = [np.abs(v[np.isfinite(v)] - levels[index]) for index, v in maps.items()]
    limit = float(np.percentile(np.concatenate(sizes), 98.0)) if sizes else 0.0
    if maps:
        text = f"\u2212{limit:.3g} … +{limit:.3g}"
        yield Picture("offset-scale", "offset", text, _coloured(np.tile(_SCALE, (8, 1))))
    for index, values in maps.items():
        label = f"{store.spec.visits[index]}: {levels[index]:+.4g}".replace("-", "\u2212")
        png = _coloured((values - levels[index]) / (2.0 * (limit or 1.0)) + 0.5)
        yield Picture(f"offset-{index}", "offset", label, png)


def _maps_of_solution(store: TractStore, run: str) -> dict[int, NDArray[np.float64]]:
    """Return the offsets of one solution over the tract, NaN where a visit has no pixel."""
    try:
        offsets = store.array(f"match/{run}/offset")
    except StoreError:
        return {}
    counts = store.array(f"superpixels/{store.spec.kind}/count")
    rows, columns = _thinned(store.spec.grid.shape)
    maps: dict[int, NDArray[np.float64]] = {}
    for index in range(len(store.spec.visits)):
        values = np.asarray(offsets[index], np.float64)[np.ix_(rows, columns)]
        count = np.asarray(counts[index], np.float64)[np.ix_(rows, columns)]
        values[~((count > 0) & np.isfinite(values))] = np.nan
        if np.isfinite(values).any():
            maps[index] = values
    return maps


def _maps_of_warps(store: TractStore, run: str) -> dict[int, NDArray[np.float64]]:
    """Return the cells that the models of single warps go through, NaN where there are none."""
    grid, patches = store.spec.grid, store.spec.geometry.patches
    rows, columns = _thinned(grid.shape)
    ys, xs = grid.y_centres[rows], grid.x_centres[columns]
    maps: dict[int, NDArray[np.float64]] = {}
    for patch in range(patches.n_patches):
        inner = patches.inner_box(patch)
        here_y = np.flatnonzero((ys >= inner.y0) & (ys < inner.y1))
        here_x = np.flatnonzero((xs >= inner.x0) & (xs < inner.x1))
        for index, offset in load_patch_offsets(store, run, patch).items():
            cells, box = offset.model.background.values, offset.model.box
            row = ((ys[here_y] - box.y0) * cells.shape[0] / box.height).astype(int)
            column = ((xs[here_x] - box.x0) * cells.shape[1] / box.width).astype(int)
            whole = maps.setdefault(index, np.full((rows.size, columns.size), np.nan))
            whole[np.ix_(here_y, here_x)] = cells[np.ix_(row, column)]
    return {index: maps[index] for index in sorted(maps) if np.isfinite(maps[index]).any()}


def _thinned(shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows and columns of superpixels that a map shows."""
    step = -(-max(shape) // _MOST_BLOCKS)
    return np.arange(0, shape[0], step), np.arange(0, shape[1], step)


def _coloured(shares: NDArray[np.float64]) -> bytes:
    levels = np.clip(np.nan_to_num(shares, nan=0.5), 0, 1)
    pixels = np.empty((*shares.shape, 3), np.uint8)
    for channel, values in enumerate(zip(*_COLOURS, strict=True)):
        pixels[..., channel] = np.interp(levels, (0.0, 0.5, 1.0), values).round()
    pixels[~np.isfinite(shares)] = _NO_DATA
    return _png(Image.fromarray(pixels[::-1]))


class MosaicPainter:
    """The mosaic of the tract, growing patch by patch.

    Parameters
    ----------
    store
        The open store.
    run
        Name of the run.
    """

    def __init__(self, store: TractStore, run: str) -> None:
        self._blocks = TractBlocks(store, run)

    def add(self, patch: int) -> None:
        """Add a patch that has been coadded.

        Raises
        ------
        StoreError
            ``object-missing`` when it has not.
        """
        self._blocks.add(patch)

    @property
    def n_patches(self) -> int:
        """Number of patches so far."""
        return len(self._blocks.patches)

    def pictures(self) -> Iterator[Picture]:
        """Yield the mosaics so far, at one stretch, each around its own median."""
        means = self._blocks.means()
        if "matched" not in means:
            return
        low, high = _stretch(means["matched"])
        middle = _median(means["matched"])
        text = f"{self.n_patches} of {self._blocks.store.spec.geometry.patches.n_patches} patches"
        for kind, name in (("before", "unmatched"), ("after", "matched")):
            if name in means:
                shift = _median(means[name]) - middle
                png = _grey((means[name] - shift - low) / (high - low))
                yield Picture(f"mosaic-{kind}", kind, text, png)  # type: ignore[arg-type]


def _median(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else 0.0


def _stretch(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return black and white: the sky in dark grey, faint light in the upper half."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, middle, high = (float(v) for v in np.percentile(known, [1.0, 50.0, 98.0]))
    low = min(low, middle - 0.5 * (high - middle))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _grey(shares: NDArray[np.float64]) -> bytes:
    """Return a picture of a few greys, and of one colour that is no grey where nothing is."""
    levels = np.clip(np.nan_to_num(shares, nan=0.0), 0, 1) * (_SHADES - 1)
    pixels = np.where(np.isfinite(shares), levels.round() + 1, 0).astype(np.uint8)
    image = Image.fromarray(pixels[::-1])
    image = Image.frombytes("P", image.size, image.tobytes())
    greys = np.linspace(0, 255, _SHADES).round().astype(int)
    image.putpalette([*_NO_DATA, *np.repeat(greys, 3).tolist()])
    return _png(image)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
