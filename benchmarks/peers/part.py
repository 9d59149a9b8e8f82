"""Runs every program on one tract and lines them up."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.job import simulated
from benchmarks.measure import in_process
from benchmarks.peers.ours import run_ours
from benchmarks.peers.scene import Scene
from benchmarks.peers.scene_making import make_scene
from benchmarks.peers.score import Score, score
from benchmarks.progress import Progress
from benchmarks.results import Cell, Check, Figure, PartResult, Plot, Table, spread
from benchmarks.sizes import Size
from bgmatch_dask.warps.simulation import SimulationConfig

__all__ = ("run_peers",)

_TEXT = (
    "One simulated tract with a known truth: visits whose skies differ in level, slope and "
    "curvature, some with scattered light, one with an unmasked trail, different seeing, "
    "detector gaps, and one huge galaxy with cirrus that must survive. Other programs get one FITS "
    "image per visit, bad pixels already blanked, each in a fresh process; imports and preparation "
    "do not count. bgmatch gets the patch files of the same pixels and its time is the whole job "
    "(ingest into the store, matching, coadd) on two worker processes that are up. Errors "
    "need no noise: the true background of each visit plus what a program added to it is what is "
    "left. Our mesh is the one-image background of bgmatch alone, on the arrays that sep and "
    "photutils get, in one process: what remains when nothing is stored, solved or propagated. "
    "The error is the rms of its difference between two visits, median over pairs; a seam "
    "is the step of the mean coadd's background where the set of visits changes; diffuse is the "
    "share of galaxy and cirrus that is left (1 is right)."
)


_OWN = "bgmatch_dask.numerics.gridded"


@dataclass(frozen=True, slots=True)
class Peer:
    """One program to run; its functions are ``module:function`` below `benchmarks.peers`."""

    name: str
    """Name for people."""
    does: str
    """What it does in the time that counts."""
    target: str = ""
    """What is timed; takes ``folder`` and ``out``."""
    needs: str = ""
    """Module that has to be there, imported before the clock starts."""
    options: tuple[tuple[str, Any], ...] = ()
    """Further arguments."""
    program: tuple[str, ...] = ()
    """Names of the program on the path, one of which has to be there."""
    before: str = ""
    """Writes the inputs as the program wants them; takes ``folder``."""
    after: str = ""
    """Writes the corrections from what the program left; takes ``folder`` and ``out``."""
    more_than_constant: bool = True
    """Whether it models more than a constant per visit."""
    own: bool = False
    """Whether it is a part of ours, given what the programs beside it are given."""


def _peers(size: Size, tract: Path) -> tuple[Peer, ...]:
    absolute, difference = (("absolute", True),), (("absolute", False),)
    sep, photutils = ("meshes:run_sep", "sep"), ("meshes:run_photutils", "photutils.background")
    wiimatch = ("constants:run_wiimatch", "wiimatch.match")
    one, two = size.wiimatch_steps
    return (
        Peer(
            "our mesh on differences",
            "match, mean",
            "meshes:run_own",
            _OWN,
            before="meshes:prepare_own",
            own=True,
        ),
        Peer("sep on differences", "match, mean", *sep, difference),
        Peer("sep on images", "subtract, mean", *sep, absolute),
        Peer("photutils on differences", "match, mean", *photutils, difference),
        Peer("photutils on images", "subtract, mean", *photutils, absolute),
        Peer(
            "SWarp",
            "subtract, clipped",
            "swarp:run_swarp",
            program=("SWarp", "swarp"),
            before="swarp:prepare_swarp",
            after="swarp:swarp_corrections",
        ),
        Peer(
            "stcal skymatch",
            "constants, no coadd",
            "constants:run_stcal",
            "stcal.skymatch",
            more_than_constant=False,
        ),
        Peer(
            "reproject match_background",
            "constants, mean",
            "constants:run_reproject",
            "reproject.mosaicking",
            more_than_constant=False,
        ),
        Peer(
            "Montage",
            "planes, mean",
            "montage:run_montage",
            "MontagePy.main",
            before="montage:prepare_montage",
            after="montage:montage_corrections",
        ),
        Peer(
            f"wiimatch degree 1, 1 px in {one**2}",
            "polynomials, no coadd",
            *wiimatch,
            (("degree", 1), ("step", one)),
        ),
        Peer(
            f"wiimatch degree 2, 1 px in {two**2}",
            "polynomials, no coadd",
            *wiimatch,
            (("degree", 2), ("step", two)),
        ),
        Peer(
            "model of the upstream task",
            "match, mean",
            "upstream:run_upstream",
            options=(("tract", str(tract)),),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A program that ran."""

    peer: Peer
    walls: Sequence[float]
    cpu: float
    peak: float
    score: Score

    @property
    def wall(self) -> float:
        return statistics.median(self.walls)


def run_peers(size: Size, work: Path, progress: Progress) -> PartResult:
    """Run all programs that are installed."""
    config = SimulationConfig(
        visits=size.peer_visits,
        patches=(3, 3),
        patch_size=size.peer_patch,
        border=size.peer_patch // 20,
        pointings="broad",
    )
    progress.step("simulating warps")
    tract = simulated(work, config)
    peers = _peers(size, tract)
    progress.expect(2 + len(peers))
    scene = make_scene(tract, work / f"scene-{tract.name}")
    progress.step("bgmatch")
    jobs = run_ours(tract, scene, work, work / "ours.npz", size.repeats)
    ours = _Entry(
        Peer("bgmatch, whole job, 2 workers", "ingest, match, coadd"),
        [job.seconds for job in jobs],
        statistics.median(job.cpu for job in jobs),
        max(max(job.peak, job.driver_peak) for job in jobs),
        score(scene, work / "ours.npz"),
    )
    entries, skipped = [], {}
    for peer in peers:
        progress.step(peer.name)
        found = _run_peer(peer, scene, work, size)
        if isinstance(found, str):
            skipped[peer.name] = found
        else:
            entries.append(found)
    peak = max(job.peak for job in jobs)
    pixels = size.peer_visits * scene.shape[0] * scene.shape[1] / 1e6
    return PartResult(
        "peers",
        "Other programs on the same pixels",
        _TEXT,
        (*_our_figures(ours, peak), *(f for e in entries for f in _figures(e, ours))),
        (_table([ours, *entries], pixels), _ratios(entries, ours)),
        _plots([ours, *entries]),
        tuple(_checks(entries, ours, peak, size)),
        skipped,
    )


def _run_peer(peer: Peer, scene: Scene, work: Path, size: Size) -> _Entry | str:
    """Run a program and score it, or say why it could not be run."""
    if peer.program and not any(shutil.which(name) for name in peer.program):
        return f"there is no program {peer.program[0]} on the path"
    if peer.needs and importlib.util.find_spec(peer.needs.partition(".")[0]) is None:
        return f"{peer.needs.partition('.')[0]} is not installed; the extra `bench` has it"
    out = work / "peer.npz"
    out.unlink(missing_ok=True)
    folder = {"folder": str(scene.folder)}
    found = _call(peer.before, folder) if peer.before else ""
    if found:
        return found
    run = in_process(
        f"benchmarks.peers.{peer.target}",
        folder | {"out": str(out)} | dict(peer.options),
        size.peer_timeout,
        imports=[peer.needs] if peer.needs else [],
        calls=1 + size.peer_repeats,
        long=size.peer_long,
    )
    found = run.error
    if peer.after and not found:
        found = _call(peer.after, folder | {"out": str(out)})
    if found:
        return found[:200]
    return _Entry(peer, run.walls, run.cpu, run.peak, score(scene, out))


def _call(target: str, arguments: dict[str, str]) -> str:
    """Call a function here that is not timed; return why it failed."""
    module, _, name = target.partition(":")
    try:
        getattr(importlib.import_module(f"benchmarks.peers.{module}"), name)(**arguments)
    except Exception as error:  # noqa: BLE001  A peer may fail in any way; it is reported.
        return f"{type(error).__name__}: {error}"
    return ""


def _our_figures(ours: _Entry, peak: float) -> list[Figure]:
    s = ours.score
    return [
        spread("peers.ours.wall", ours.walls, "s", "lower"),
        spread("peers.ours.peak", [peak], "MB", "lower"),
        spread("peers.ours.error", [s.error], "nJy", "lower", relative=True),
        spread("peers.ours.seam", [s.seam], "nJy", "lower", relative=True),
        spread("peers.ours.diffuse", [s.diffuse], "x", "higher", relative=True),
    ]


def _figures(entry: _Entry, ours: _Entry) -> list[Figure]:
    key = f"peers.{entry.peer.name}"
    return [
        spread(f"{key}.time_over_ours", [entry.wall / ours.wall], "x", "higher", relative=True),
        spread(f"{key}.cpu_over_ours", [entry.cpu / ours.cpu], "x", "higher", relative=True),
        spread(
            f"{key}.error_over_ours",
            [entry.score.error / ours.score.error],
            "x",
            "higher",
            relative=True,
        ),
    ]


def _table(entries: list[_Entry], pixels: float) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            e.peer.name,
            e.peer.does,
            e.wall,
            e.cpu,
            e.peak,
            pixels / e.wall,
            e.score.error,
            e.score.worst,
            e.score.seam,
            e.score.seam_worst,
            e.score.diffuse,
            e.score.visits,
        )
        for e in entries
    ]
    columns = (
        "program",
        "does",
        "s",
        "CPU s",
        "peak MB",
        "Mpix/s",
        "error",
        "worst pair",
        "seam rms",
        "worst seam",
        "diffuse kept",
        "visits",
    )
    return Table(
        "Time, memory and errors",
        columns,
        tuple(rows),
        "Errors in nJy. Peak: largest process; that of bgmatch is its driver or a worker. Programs "
        "run with usual settings; s and CPU s are medians. The upstream task is a model of ours of "
        "its cost, not its code.",
    )


def _ratios(entries: list[_Entry], ours: _Entry) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            e.peer.name,
            e.wall / ours.wall,
            e.cpu / ours.cpu,
            e.peak / ours.peak,
            e.score.error / ours.score.error,
            e.score.seam / ours.score.seam,
        )
        for e in entries
    ]
    return Table(
        "Ratios to bgmatch: above 1 is worse than bgmatch",
        ("program", "time ×", "CPU ×", "memory ×", "error ×", "seams ×"),
        tuple(rows),
    )


def _plots(entries: list[_Entry]) -> tuple[Plot, ...]:
    def bars(values: Callable[[_Entry], float]) -> dict[str, list[tuple[float | str, float]]]:
        return {"": [(e.peer.name, values(e)) for e in entries]}

    return (
        Plot("Wall time", "bars", "s", "", bars(lambda e: e.wall), logarithmic=True),
        Plot(
            "Error of the background difference of two visits",
            "bars",
            "nJy",
            "",
            bars(lambda e: e.score.error),
            logarithmic=True,
        ),
        Plot(
            "Diffuse light kept",
            "bars",
            "share",
            "",
            bars(lambda e: e.score.diffuse),
            level=1.0,
            note="A program that models the sky of each image alone takes the nebula with it.",
        ),
    )


def _parted(entries: list[_Entry]) -> tuple[_Entry | None, list[_Entry]]:
    """Return our mesh, and the programs of others."""
    own = [e for e in entries if e.peer.own]
    return own[0] if own else None, [e for e in entries if not e.peer.own]


def _checks(entries: list[_Entry], ours: _Entry, peak: float, size: Size) -> list[Check]:
    full = size.name == "full"
    mesh, others = _parted(entries)
    checks = [
        Check("Diffuse light kept, off by", abs(ours.score.diffuse - 1), 0.03),
        Check("Whole job on the peers' tract", ours.wall, 8.5, unit="s", judged=full),
        Check("Peak memory of a worker on it", peak, 600, unit="MB", judged=full),
    ]
    checks += [
        Check(
            f"Time of {e.peer.name} over ours", e.wall / ours.wall, 1.0, at_most=False, judged=full
        )
        for e in others
        if e.peer.more_than_constant
    ]
    checks += [
        Check(
            f"Processor time of {e.peer.name} over that of our mesh on the same arrays",
            e.cpu / mesh.cpu,
            1.0,
            at_most=False,
            judged=full,
        )
        for e in others
        if mesh is not None and e.peer.target.startswith("meshes:")
    ]
    values: dict[str, Callable[[Score], float]] = {
        "Error": lambda found: found.error,
        "Seams": lambda found: found.seam,
    }
    for what, value in values.items():
        if others:
            best = min(others, key=lambda e: value(e.score))
            ratio = value(best.score) / value(ours.score)
            claim = f"{what} of the best other program, {best.peer.name}, over ours"
            checks.append(Check(claim, ratio, 1.0, at_most=False))
    return checks
