"""The unit of data that flows: one visit on one patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.errors import GeometryError

if TYPE_CHECKING:
    from bgmatch_dask.geometry import Box

__all__ = ("Warp",)


@dataclass(frozen=True, slots=True, eq=False)
class Warp:
    """One visit resampled onto one box of the tract.

    Where there is no data the image is NaN, the variance is +inf and the mask has ``NO_DATA``.

    Raises
    ------
    GeometryError
        ``warp-shape`` when a plane does not have the shape of the box, or not its dtype.
    """

    box: Box
    """The tract pixels that the planes cover."""
    image: NDArray[np.float32]
    """Surface brightness [nJy per pixel], shape ``box.shape``."""
    variance: NDArray[np.float32]
    """Variance of ``image`` [nJy²], shape ``box.shape``."""
    mask: NDArray[np.int32]
    """Bits of `bgmatch_dask.maskplanes.MASK_PLANES`, shape ``box.shape``."""
    ratio: NDArray[np.float32] | None = None
    """Background over photometric calibration, same shape: image times it has a smooth background;
    None: the two are the same."""
    checksum: str = ""
    """The first 128 bits of the BLAKE3 digest of the file that it is read from, in hex; empty where
    that was not taken."""

    def __post_init__(self) -> None:
        """Refuse planes that do not fit the box."""
        planes = (("image", np.float32), ("variance", np.float32), ("mask", np.int32))
        for name, dtype in (*planes, *((("ratio", np.float32),) if self.ratio is not None else ())):
            plane = getattr(self, name)
            if plane.shape != self.box.shape or plane.dtype != dtype:
                raise GeometryError(
                    "warp-shape",
                    f"The {name} plane is {plane.dtype} {plane.shape}, "
                    f"it should be {np.dtype(dtype)} {self.box.shape}",
                    where=str(self.box),
                )

    def crop(self, box: Box) -> Warp:
        """Return the part of the warp on ``box``, as views of its planes.

        Parameters
        ----------
        box
            Tract pixels inside `box` of this warp.

        Returns
        -------
        Warp
            Shares memory with this warp.

        Raises
        ------
        GeometryError
            ``box-outside`` when ``box`` is not inside this warp.
        """
        part = box.slices_in(self.box)
        ratio = None if self.ratio is None else self.ratio[part]
        return Warp(box, self.image[part], self.variance[part], self.mask[part], ratio)
