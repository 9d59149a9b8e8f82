"""Lists of backgrounds that add up to one.

Source: LSST ``afw.math.BackgroundList``. A background that was subtracted in steps is the sum of
what each step subtracted; the list keeps the steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bgmatch_dask.errors import ConfigError
from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.chebyshev import ChebyshevControl
from bgmatch_dask.numerics.gridded import GriddedBackground
from bgmatch_dask.numerics.interpolation import InterpStyle
from bgmatch_dask.numerics.rendering import UndersampleStyle

__all__ = ("BackgroundElement", "BackgroundList")


@dataclass(frozen=True, slots=True)
class BackgroundElement:
    """One background, and how this list draws it."""

    background: GriddedBackground
    """Cell values."""
    style: InterpStyle
    """Interpolation between cells."""
    undersample: UndersampleStyle
    """Rule where there are too few cells."""
    approximation: ChebyshevControl | None = None
    """Polynomial to draw instead of interpolating."""

    @classmethod
    def of(cls, background: GriddedBackground) -> BackgroundElement:
        """Draw a background the way its own control says."""
        control = background.control
        return cls(background, control.style, control.undersample, control.approximation)

    def render(self, box: Box | None = None, *, upstream: bool = False) -> NDArray[np.float32]:
        """Draw this background, float32; see `GriddedBackground.render` for errors."""
        if self.approximation is not None:
            return self.background.approximate(self.approximation).render(box)
        drawn = self.background.render(box, self.style, self.undersample, upstream=upstream)
        return drawn.image


class BackgroundList:
    """Backgrounds of one box; their sum is the background.

    Parameters
    ----------
    elements
        Elements, or backgrounds to be drawn by their own control.
    """

    def __init__(self, elements: Iterable[BackgroundElement | GriddedBackground] = ()) -> None:
        self._elements: list[BackgroundElement] = []
        for element in elements:
            self.append(element)

    def append(self, element: BackgroundElement | GriddedBackground) -> None:
        """Add a background at the end.

        Raises
        ------
        ConfigError
            ``background-list-box`` when its box is not that of the others.
        """
        if isinstance(element, GriddedBackground):
            element = BackgroundElement.of(element)
        if self._elements and element.background.box != self._elements[0].background.box:
            raise ConfigError(
                "background-list-box",
                f"{element.background.box} is not the box of the list, "
                f"{self._elements[0].background.box}",
            )
        self._elements.append(element)

    def __len__(self) -> int:
        """Return the number of backgrounds."""
        return len(self._elements)

    def __iter__(self) -> Iterator[BackgroundElement]:
        """Iterate over the elements in the order of addition."""
        return iter(self._elements)

    def __getitem__(self, index: int) -> BackgroundElement:
        """Return one element."""
        return self._elements[index]

    def render(
        self, box: Box | None = None, *, upstream: bool = False
    ) -> NDArray[np.float32] | None:
        """Draw the sum.

        Parameters
        ----------
        box
            Pixels wanted; the whole box of the backgrounds when None.
        upstream
            See `bgmatch_dask.numerics.gridded`.

        Returns
        -------
        ndarray of float32 or None
            Sum over the elements, in their order, in float32; None for an empty list.

        Raises
        ------
        BgmatchError
            As `GriddedBackground.render`.
        """
        total: NDArray[np.float32] | None = None
        for element in self._elements:
            image = element.render(box, upstream=upstream)
            if total is None:
                total = image
            else:
                total += image
        return total
