"""Match FITS files to one of them, one after the other: per-warp matching without a store."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bgmatch_dask.background.per_warp import (
    GateDecision,
    PerWarpConfig,
    WarpFigures,
    WarpGate,
    WarpMatch,
    WarpModel,
    add_match_noise,
    match_warp,
)
from bgmatch_dask.errors import BgmatchError, ConfigError, Rejected
from bgmatch_dask.warps.background_fits import write_background_list
from bgmatch_dask.warps.file_grid import (
    FileGrid,
    file_stem,
    open_grid,
    read_on_grid,
    write_on_grid,
)
from bgmatch_dask.warps.profile import Profile
from bgmatch_dask.warps.warp import Warp

__all__ = ("FileMatches", "MatchedFile", "match_files")

MAX_PIXELS = 400_000_000
"""Refuse an image that claims more pixels."""

Card = tuple[str, str | float | int]


@dataclass(frozen=True, slots=True, eq=False)
class MatchedFile:
    """One file that was matched; its pixels are in the file that was written."""

    source: str
    """The input."""
    image: Path
    """The matched image."""
    offset: Path
    """The offset, a list of one background."""
    model: WarpModel
    """The offset."""
    figures: WarpFigures
    """How good the match is."""
    decision: GateDecision
    """Whether it is good enough to be stacked."""


@dataclass(frozen=True, slots=True, eq=False)
class FileMatches:
    """What became of all inputs; the reference is none of them."""

    reference: str
    """The file that the others were matched to."""
    unit: str
    """Unit of the pixels."""
    matched: tuple[MatchedFile, ...]
    """Inputs that were matched, in their order."""
    failed: tuple[Rejected, ...]
    """Inputs that could not be read or matched."""


def match_files(
    reference: str,
    inputs: Sequence[str],
    out: Path,
    profile: Profile,
    *,
    config: PerWarpConfig | None = None,
    gate: WarpGate | None = None,
    upstream: bool = False,
    on_file: Callable[[str], None] | None = None,
) -> FileMatches:
    """Match files to the background of a reference file and write the results.

    Two images are in memory at a time. For an input ``NAME.fits`` there will be
    ``NAME-matched.fits``, in the layout of the input and on the grid of the reference, and
    ``NAME-offset.fits``, what was added. A variance plane grows by the squared RMS of the fit.

    Parameters
    ----------
    reference
        File that the others are matched to.
    inputs
        Files to match; the reference among them is passed over.
    out
        Folder for the results; made when it is missing.
    profile
        How to read the files.
    config, gate
        Options of the match, and limits of a good one; defaults when None.
    upstream
        Reproduce the faults of the upstream task, to compare with its results.
    on_file
        Told the path of each input before it is read.

    Returns
    -------
    FileMatches
        An input that fails stops no other.

    Raises
    ------
    ConfigError
        ``match-files-names`` when two inputs would write the same file.
    InputError
        When the reference cannot be read.
    """
    others = [name for name in inputs if Path(name).resolve() != Path(reference).resolve()]
    _check_names(others)
    grid = open_grid(reference, profile, max_pixels=MAX_PIXELS)
    base = read_on_grid(reference, grid)
    out.mkdir(parents=True, exist_ok=True)
    options = (config or PerWarpConfig(), gate or WarpGate(), upstream)
    job = _Job(reference, base, grid, out, *options)
    matched: list[MatchedFile] = []
    failed: list[Rejected] = []
    for name in others:
        if on_file is not None:
            on_file(name)
        try:
            matched.append(_match_file(name, job))
        except BgmatchError as error:
            failed.append(Rejected.from_error(error, name))
    unit = "nJy" if profile.layout == "lsst" else profile.unit
    return FileMatches(reference, unit, tuple(matched), tuple(failed))


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """What all inputs have in common."""

    reference: str
    base: Warp
    grid: FileGrid
    out: Path
    config: PerWarpConfig
    gate: WarpGate
    upstream: bool


def _check_names(inputs: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for name in inputs:
        other = first.setdefault(file_stem(name), name)
        if other is not name:
            raise ConfigError(
                "match-files-names",
                f"{other} and {name} would write the same files",
                fix="Match them in two commands, into two folders.",
            )


def _match_file(name: str, job: _Job) -> MatchedFile:
    match = match_warp(job.base, read_on_grid(name, job.grid), job.config, upstream=job.upstream)
    stem = file_stem(name)
    image, offset = job.out / f"{stem}-matched.fits", job.out / f"{stem}-offset.fits"
    noisy = replace(match.warp, variance=add_match_noise(match.warp.variance, match.figures))
    write_on_grid(image, noisy, name, job.grid, _cards(match, job.reference))
    write_background_list(match.model.as_list(), offset)
    decision = job.gate.decide(match.figures)
    return MatchedFile(name, image, offset, match.model, match.figures, decision)


def _cards(match: WarpMatch, reference: str) -> list[Card]:
    figures = {
        "BGM_RMS": match.figures.fit_rms,
        "BGM_MSE": match.figures.matched_mse,
        "BGM_DVAR": match.figures.difference_variance,
        "BGM_RATI": match.figures.ratio,
    }
    name = file_stem(reference).encode("ascii", "replace").decode()[:60]
    # FITS has no card for a number that is not finite.
    return [
        ("BGM_REF", name),
        *((key, value) for key, value in figures.items() if math.isfinite(value)),
    ]
