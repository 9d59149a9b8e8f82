"""The ratio of background to photometric calibration: applied before differencing, undone after.

Images are calibrated so that stars have the same brightness everywhere; their backgrounds are
smooth only under another flat field. A plane r per warp leads from one to the other: image · r has
a smooth background. What is measured and solved is in those units; what is *added* to an image is
offset / r. The store keeps r only when ``inputs.photometric_ratio`` is set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.geometry import Box
from bgmatch_dask.store import TractStore
from bgmatch_dask.store.layout import create_plane_array

if TYPE_CHECKING:
    from bgmatch_dask.pipeline.context import RunContext
    from bgmatch_dask.pipeline.results import PatchOffset
    from bgmatch_dask.warps.warp import Warp

__all__ = (
    "RatioOffset",
    "has_ratios",
    "make_ratio_cube",
    "read_ratio",
    "undo_ratio",
    "write_ratio",
)

_KIND = "photometric_ratio"
_METADATA = f"{_KIND}/image/zarr.json"


@dataclass(frozen=True, slots=True, eq=False)
class RatioOffset:
    """An offset over the ratio of its warp; see `PatchOffset`."""

    offset: PatchOffset
    """The offset in units in which backgrounds are smooth."""
    store: TractStore
    """The store that keeps the ratio."""
    visit: int
    """Place on the visit axis."""
    patch: int
    """The patch."""

    def image(self, box: Box) -> NDArray[np.float32]:
        """Return what is added to the image."""
        return self.offset.image(box) / _read(self.store, self.visit, self.patch, box)

    def variance(self, box: Box) -> NDArray[np.float32]:
        """Return what is added to the variance."""
        return self.offset.variance(box) / _read(self.store, self.visit, self.patch, box) ** 2


def undo_ratio(offset: PatchOffset, store: TractStore, visit: int, patch: int) -> PatchOffset:
    """Return the offset that is added to the image: the same one where the store has no ratios."""
    return RatioOffset(offset, store, visit, patch) if has_ratios(store) else offset


def make_ratio_cube(run: RunContext) -> None:
    """Make the cube when the run uses ratios, or let it grow when an earlier run did."""
    used = run.plan.config.inputs.photometric_ratio is not None
    if used or run.plan.location.exists(_METADATA):
        spec = run.plan.spec
        run.create_group(_KIND, lambda group: create_plane_array(group, "image", spec))


def has_ratios(store: TractStore) -> bool:
    """Whether the store keeps ratios."""
    return store.location.exists(_METADATA)


def write_ratio(store: TractStore, visit: int, patch: int, warp: Warp) -> None:
    """Store the ratio of a warp where there is a cube; none is written as no data."""
    if not has_ratios(store):
        return
    patches = store.spec.geometry.patches
    full = np.full(patches.plane_shape, np.nan, np.float32)
    if warp.ratio is not None:
        full[warp.box.slices_in(patches.plane_box(patch))] = warp.ratio
    store.write_plane("image", visit, patch, full, kind=_KIND)


def read_ratio(store: TractStore, visit: int, patch: int, box: Box) -> NDArray[np.float32] | None:
    """Return the ratio of a warp on a box, 1 where it is unknown; None without a cube."""
    return _read(store, visit, patch, box) if has_ratios(store) else None


def _read(store: TractStore, visit: int, patch: int, box: Box) -> NDArray[np.float32]:
    values: NDArray[np.float32] = store.read("image", visit, patch, box, kind=_KIND)
    return np.where(np.isfinite(values), values, np.float32(1))
