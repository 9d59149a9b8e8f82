"""Offsets of per-warp matches: as arrays of one file per patch, and drawn again from them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.background.per_warp import WarpModel
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.chebyshev import ChebyshevFit
from bgmatch_dask.numerics.gridded import BackgroundControl, GriddedBackground
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.rendering import UndersampleStyle
from bgmatch_dask.store import TractStore, open_store

__all__ = (
    "WarpOffset",
    "load_patch_offsets",
    "load_warp_offset",
    "pack_warp_offsets",
    "warp_offsets_path",
)


@dataclass(frozen=True, slots=True, eq=False)
class WarpOffset:
    """The offset of one visit on one patch, from a per-warp match."""

    model: WarpModel
    """The fitted model."""
    fit_rms: float
    """Root mean square of its residuals [image unit]."""

    def image(self, box: Box) -> NDArray[np.float32]:
        """Draw the offset on a box, NaN beyond the box of the match.

        The whole model is drawn and then cut, so that two boxes agree bitwise.
        """
        return _placed(self.model.render(), self.model.box, box)

    def variance(self, box: Box) -> NDArray[np.float32]:
        """Return ``fit_rms²`` on a box [image unit squared], NaN beyond the box of the match."""
        noise = np.full(self.model.box.shape, self.fit_rms**2, np.float32)
        return _placed(noise, self.model.box, box)


def _placed(values: NDArray[np.float32], own: Box, box: Box) -> NDArray[np.float32]:
    out = np.full(box.shape, np.nan, np.float32)
    common = own.intersect(box)
    if not common.empty:
        out[common.slices_in(box)] = values[common.slices_in(own)]
    return out


def warp_offsets_path(run: str, patch: int) -> str:
    """Return the object that holds the offsets of all visits on a patch."""
    return f"match/{run}/per_warp/{patch:05d}.npz"


def pack_warp_offsets(offsets: Mapping[int, WarpOffset]) -> dict[str, NDArray[Any]]:
    """Return all that is needed to draw offsets again, as arrays.

    Parameters
    ----------
    offsets
        By place on the visit axis; all of one patch.

    Returns
    -------
    dict
        ``visits`` (int64) and, for each visit ``i``: ``i.box`` (int64: x0, y0, width, height),
        ``i.values`` and ``i.variance`` (float32, cells), ``i.styles`` (int64: interpolation,
        undersampling), ``i.fit_rms``, and ``i.coefficients``, ``i.fit`` (order, valid cells,
        rank, condition), which are empty for a spline.
    """
    arrays: dict[str, NDArray[Any]] = {"visits": np.array(sorted(offsets), np.int64)}
    for index in sorted(offsets):
        model, background = offsets[index].model, offsets[index].model.background
        box, control, fit = model.box, background.control, model.polynomial
        polynomial = [] if fit is None else [fit.order, fit.n_valid, fit.rank, fit.condition]
        arrays |= {
            f"{index}.box": np.array([box.x0, box.y0, box.width, box.height], np.int64),
            f"{index}.values": background.values,
            f"{index}.variance": background.variance,
            f"{index}.styles": np.array([control.style, control.undersample], np.int64),
            f"{index}.fit_rms": np.array(offsets[index].fit_rms),
            f"{index}.coefficients": np.empty(0) if fit is None else fit.coefficients,
            f"{index}.fit": np.array(polynomial, np.float64),
        }
    return arrays


def load_warp_offset(store: TractStore, run: str, visit: str, patch: int) -> WarpOffset | None:
    """Return the offset of a visit on a patch; None when it was not matched there."""
    return load_patch_offsets(store, run, patch).get(store.spec.visit_index(visit))


def load_patch_offsets(store: TractStore, run: str, patch: int) -> Mapping[int, WarpOffset]:
    """Return the offsets on a patch by place on the visit axis; empty when it was not matched."""
    path = warp_offsets_path(run, patch)
    # The modification tag is in the key, so that a worker never serves a match of before.
    tag = store.location.tag(path)
    return {} if tag is None else _load(store.location.url, path, tag)


@lru_cache(maxsize=16)
def _load(url: str, path: str, tag: str) -> Mapping[int, WarpOffset]:
    del tag
    data = open_store(url).location.read_bytes(path)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {index: _unpack(arrays, index) for index in arrays["visits"].tolist()}


def _unpack(arrays: Mapping[str, NDArray[Any]], index: int) -> WarpOffset:
    box = Box(*arrays[f"{index}.box"].tolist())
    values, variance = arrays[f"{index}.values"], arrays[f"{index}.variance"]
    style, undersample = arrays[f"{index}.styles"].tolist()
    ny, nx = values.shape
    control = BackgroundControl(nx, ny, InterpStyle(style), UndersampleStyle(undersample))
    background = GriddedBackground(box, control, values, variance, np.zeros(values.shape, np.int32))
    polynomial = None
    if arrays[f"{index}.fit"].size:
        order, n_valid, rank, condition = arrays[f"{index}.fit"].tolist()
        polynomial = ChebyshevFit(
            arrays[f"{index}.coefficients"], int(order), box, int(n_valid), int(rank), condition
        )
    return WarpOffset(WarpModel(background, polynomial), float(arrays[f"{index}.fit_rms"]))
