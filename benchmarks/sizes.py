"""How large each part is: quick, full, or tiny for the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bgmatch_dask.warps.simulation import SimulationConfig

__all__ = ("SIZES", "Size")


@dataclass(frozen=True, slots=True)
class Size:
    """Amounts of one level of thoroughness."""

    name: str
    """``tiny``, ``quick`` or ``full``."""
    repeats: int
    """Repeats of each measurement."""
    starts: int
    """Repeats of the start of each program."""
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
    peer_repeats: int
    """Calls of a program that count."""
    peer_long: float
    """A program that takes longer than this is called once [s]."""
    wiimatch_steps: tuple[int, int]
    """Rows and columns of which one is given to wiimatch, by degree."""
    many_visits: tuple[int, ...]
    """Numbers of visits over which memory and cost are compared."""
    many_patches: tuple[int, ...]
    """Patches along a side over which the cost is compared."""
    visits_patch: int
    """Inner size of a patch where visits are many [px]."""
    patches_patch: int
    """Inner size of a patch where patches are many [px]."""
    strong_repeats: int
    """Jobs on one worker and on two that count."""
    sweep_patch: int
    """Inner size of the 3 × 3 patches whose properties the part `accuracy` changes [px]."""
    sweep_bin: int
    """Superpixels of these tracts [px]."""
    growth: tuple[int, ...]
    """Patches along a side over which errors are compared."""
    folds: int
    """Turns of leaving out overlaps of real tiles."""
    probe: int
    """Work of the probes of the machine."""
    probe_pause: float
    """Seconds without work before each of them."""
    noop_units: int
    """Units that do nothing, to time the scheduler."""
    peer_timeout: float
    """Longest wall time of one peer [s]."""

    @property
    def stage_tract(self) -> SimulationConfig:
        """The tract of the part `stages`, and of one worker against two."""
        return SimulationConfig(
            visits=self.stage_visits,
            patches=self.stage_patches,
            patch_size=self.stage_patch,
            border=self.stage_patch // 40,
            compressed=True,
        )

    part_seconds: Mapping[str, float]
    """What each part takes on two ordinary processors, for the time left [s]."""


_TINY = Size(
    name="tiny",
    repeats=1,
    starts=1,
    stage_patch=160,
    stage_patches=(2, 1),
    stage_visits=3,
    peer_patch=100,
    peer_visits=4,
    peer_repeats=1,
    peer_long=2,
    wiimatch_steps=(2, 4),
    many_visits=(3, 4),
    many_patches=(2, 3),
    visits_patch=96,
    patches_patch=96,
    strong_repeats=1,
    sweep_patch=120,
    sweep_bin=40,
    growth=(2,),
    folds=3,
    probe=4,
    probe_pause=0.0,
    noop_units=20,
    peer_timeout=60,
    part_seconds={"stages": 15, "scaling": 30, "peers": 40, "accuracy": 40, "kernels": 10},
)
_QUICK = replace(
    _TINY,
    name="quick",
    repeats=3,
    starts=1,
    stage_patch=1000,
    stage_visits=4,
    peer_patch=320,
    peer_visits=6,
    wiimatch_steps=(4, 8),
    many_visits=(5, 20),
    many_patches=(2, 4),
    visits_patch=240,
    patches_patch=240,
    strong_repeats=3,
    sweep_patch=300,
    sweep_bin=64,
    growth=(2, 4),
    probe=40,
    noop_units=400,
    part_seconds={"stages": 25, "scaling": 45, "peers": 45, "accuracy": 50, "kernels": 12},
)
_FULL = replace(
    _QUICK,
    name="full",
    starts=3,
    stage_patch=4000,
    stage_patches=(2, 2),
    peer_patch=1000,
    peer_visits=8,
    peer_repeats=3,
    peer_long=5,
    wiimatch_steps=(2, 4),
    many_visits=(10, 100),
    many_patches=(3, 9),
    visits_patch=400,
    patches_patch=1200,
    strong_repeats=5,
    sweep_patch=600,
    sweep_bin=128,
    growth=(2, 3, 4, 6),
    folds=5,
    probe=120,
    probe_pause=5.0,
    noop_units=2000,
    peer_timeout=600,
    part_seconds={"stages": 300, "scaling": 400, "peers": 600, "accuracy": 400, "kernels": 15},
)
SIZES = {size.name: size for size in (_TINY, _QUICK, _FULL)}
"""The levels by name."""
