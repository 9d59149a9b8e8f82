"""How large each part is: quick, full, or tiny for the tests."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("SIZES", "Size")


@dataclass(frozen=True, slots=True)
class Size:
    """Amounts of one level of thoroughness."""

    name: str
    """``tiny``, ``quick`` or ``full``."""
    repeats: int
    """Repeats of each measurement."""
    stage_patch: int
    """Inner size of a patch in the part `stages` [px]."""
    stage_patches: tuple[int, int]
    """Patches in the part `stages`."""
    stage_visits: int
    """Visits in the part `stages`."""
    peer_patch: int
    """Inner size of the 3 × 3 patches that peers work on [px]."""
    peer_visits: int
    """Visits that peers work on."""
    many_visits: tuple[int, ...]
    """Numbers of visits over which memory and cost are compared."""
    many_patches: tuple[int, ...]
    """Patches along a side over which the cost is compared."""
    scaling_patch: int
    """Inner size of a patch in the part `scaling` [px]."""
    sweep_patch: int
    """Inner size of the patches of the part `accuracy` [px]."""
    noop_units: int
    """Units that do nothing, to time the scheduler."""
    peer_timeout: float
    """Longest wall time of one peer [s]."""


SIZES = {
    "tiny": Size("tiny", 1, 160, (2, 1), 3, 100, 4, (3, 4), (2, 3), 96, 120, 20, 60),
    "quick": Size("quick", 3, 1000, (2, 1), 4, 400, 6, (5, 20), (2, 4), 300, 300, 400, 60),
    "full": Size("full", 3, 4000, (2, 2), 4, 1000, 8, (10, 100), (3, 9), 400, 600, 2000, 600),
}
"""The levels by name."""
