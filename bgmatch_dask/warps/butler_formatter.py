"""How a Butler reads the files that this package puts into a repository.

Imported by the Butler itself, by its name; needs ``lsst-daf-butler``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lsst.daf.butler import FormatterV2

from bgmatch_dask.warps.background_fits import read_background_list
from bgmatch_dask.warps.lsst import read_lsst_warp

__all__ = ("BackgroundFormatter", "ExposureFormatter")


class ExposureFormatter(FormatterV2):
    """Warps and coadds: an ``afw`` exposure inside LSST's stack, a `Warp` outside of it."""

    default_extension = ".fits"
    can_read_from_local_file = True

    def read_from_local_file(
        self,
        path: str,
        component: str | None = None,
        expected_size: int = -1,
    ) -> Any:  # noqa: ANN401
        """Return the exposure in a file."""
        del component, expected_size
        try:
            image = import_module("lsst.afw.image")
        except ImportError:
            return read_lsst_warp(path)
        return image.ExposureF.readFits(path)


class BackgroundFormatter(FormatterV2):
    """Offsets as a list of backgrounds, ``afw``'s inside LSST's stack, ours outside of it."""

    default_extension = ".fits"
    can_read_from_local_file = True

    def read_from_local_file(
        self,
        path: str,
        component: str | None = None,
        expected_size: int = -1,
    ) -> Any:  # noqa: ANN401
        """Return the list in a file."""
        del component, expected_size
        try:
            math = import_module("lsst.afw.math")
        except ImportError:
            return read_background_list(path)
        return math.BackgroundList.readFits(path)
