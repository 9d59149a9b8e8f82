"""Headers of many inputs, read by the workers: one file takes milliseconds, thousands do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bgmatch_dask.errors import Rejected
from bgmatch_dask.pipeline.engine import Engine
from bgmatch_dask.warps.catalogue import InputFile, describe_inputs
from bgmatch_dask.warps.profile import Profile
from bgmatch_dask.warps.sources import Found

__all__ = ("SpreadHeaders",)

_BATCH = 64
"""Headers that one task reads: about a quarter of a second where files are near."""


@dataclass(frozen=True, slots=True)
class HeaderTask:
    """Read the headers of some inputs."""

    found: tuple[Found, ...]
    profile: Profile
    max_pixels: int

    @property
    def unit(self) -> str:
        """Key of the unit, for errors."""
        return f"{self.found[0].path} and {len(self.found) - 1} more"


class SpreadHeaders:
    """Reads headers on an engine, as `bgmatch_dask.warps.catalogue.describe_inputs` does here.

    Parameters
    ----------
    engine
        Where the headers are read; its workers must reach the inputs, as they must later.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(
        self, found: Sequence[Found], profile: Profile, max_pixels: int
    ) -> Iterator[tuple[str, InputFile | Rejected]]:
        """Yield the path of each input and what its headers say, in any order."""
        if len(found) <= _BATCH:
            yield from describe_inputs(found, profile, max_pixels)
            return
        tasks = [
            HeaderTask(tuple(found[start : start + _BATCH]), profile, max_pixels)
            for start in range(0, len(found), _BATCH)
        ]
        for described in self.engine.map(_read_headers, tasks, "headers"):
            yield from described


def _read_headers(task: HeaderTask) -> list[tuple[str, InputFile | Rejected]]:
    return describe_inputs(task.found, task.profile, task.max_pixels)
