"""Runs every program on one tract and lines them up."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.job import simulated
from benchmarks.measure import ProcessResult, in_process
from benchmarks.peers.ours import run_ours
from benchmarks.peers.scene import Scene, make_scene
from benchmarks.peers.score import Score, score
from benchmarks.progress import Progress
from benchmarks.results import Cell, Check, Figure, PartResult, Plot, Table, spread
from benchmarks.sizes import Size
from bgmatch_dask.warps.simulation import SimulationConfig

__all__ = ("run",)

_TEXT = (
    "One simulated tract with a known truth: visits whose skies differ in level, slope and "
    "curvature, some with scattered light, one with an unmasked trail, different seeing, "
    "detector gaps, and one huge galaxy with cirrus that must survive. Other programs get one FITS "
    "image per visit, bad pixels already blanked, each in a fresh process; imports and preparation "
    "do not count. bgmatch gets the patch files of the same pixels and its time is the whole job "
    "(ingest into the store, matching, both coadds) on two worker processes that are up. Errors "
    "need no noise: the true background of each visit plus what a program added to it is what is "
    "left. The error is the rms of its difference between two visits, median over pairs; a seam "
    "is the step of the mean coadd's background where the set of visits changes; diffuse is the "
    "share of galaxy and cirrus that is left (1 is right)."
)


@dataclass(frozen=True, slots=True)
class Peer:
    """One program to run."""

    name: str
    """Name for people."""
    does: str
    """What it does in the time that counts."""
    target: str
    """``module:function`` below `benchmarks.peers`; takes ``folder`` and ``out``."""
    needs: str
    """Package or program that has to be there."""
    options: tuple[tuple[str, Any], ...] = ()
    """Further arguments."""
    more_than_constant: bool = True
    """Whether it models more than a constant per visit."""
    one_processor: bool = True
    """Whether it uses one processor."""


def _peers(size: Size) -> tuple[Peer, ...]:
    absolute, difference = (("absolute", True),), (("absolute", False),)
    return (
        Peer("sep on differences", "match, mean", "meshes:run_sep", "sep", difference),
        Peer("sep on images", "subtract, mean", "meshes:run_sep", "sep", absolute),
        Peer(
            "photutils on differences",
            "match, mean",
            "meshes:run_photutils",
            "photutils",
            difference,
        ),
        Peer(
            "photutils on images", "subtract, mean", "meshes:run_photutils", "photutils", absolute
        ),
        Peer("SWarp", "subtract, clipped", "swarp:run_swarp", "SWarp", one_processor=False),
        Peer(
            "stcal skymatch",
            "constants, no coadd",
            "constants:run_stcal",
            "stcal",
            more_than_constant=False,
        ),
        Peer(
            "reproject match_background",
            "constants, mean",
            "constants:run_reproject",
            "reproject",
            more_than_constant=False,
        ),
        Peer("Montage", "planes, mean", "montage:run_montage", "MontagePy"),
        Peer(
            "wiimatch degree 1",
            "polynomials, no coadd",
            "constants:run_wiimatch",
            "wiimatch",
            (("degree", 1), ("step", 1 if size.name != "full" else 2)),
        ),
        Peer(
            "wiimatch degree 2",
            "polynomials, no coadd",
            "constants:run_wiimatch",
            "wiimatch",
            (("degree", 2), ("step", 2)),
        ),
        Peer(
            "model of the upstream task",
            "match, mean",
            "upstream:run_upstream",
            "",
            (("patch", size.peer_patch),),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A program that ran."""

    peer: Peer
    wall: float
    cpu: float
    peak: float
    score: Score


def run(size: Size, work: Path, progress: Progress) -> PartResult:
    """Run all programs that are installed."""
    config = SimulationConfig(
        visits=size.peer_visits,
        patches=(3, 3),
        patch_size=size.peer_patch,
        border=size.peer_patch // 20,
        pointings="broad",
    )
    peers = _peers(size)
    progress.expect(2 + len(peers))
    progress.step("simulating warps")
    tract = simulated(work, config)
    scene = make_scene(tract, work / f"scene-{tract.name}")
    progress.step("bgmatch")
    ours_seconds, ours_peak, job = run_ours(tract, scene, work, work / "ours.npz", size.repeats)
    mine = score(scene, work / "ours.npz")
    entries, skipped = [], {}
    for peer in peers:
        progress.step(peer.name)
        found = _run_peer(peer, scene, work, size)
        if isinstance(found, str):
            skipped[peer.name] = found
        else:
            entries.append(found)
    wall = statistics.median(ours_seconds)
    pixels = size.peer_visits * scene.shape[0] * scene.shape[1] / 1e6
    ours = _Entry(
        Peer("bgmatch, whole job, 2 workers", "ingest, match, two coadds", "", ""),
        wall,
        job.cpu,
        ours_peak,
        mine,
    )
    return PartResult(
        "peers",
        "Other programs on the same pixels",
        _TEXT,
        (*_our_figures(ours_seconds, ours), *(f for e in entries for f in _figures(e, ours))),
        (_table([ours, *entries], pixels), _ratios(entries, ours)),
        _plots([ours, *entries]),
        tuple(_checks(entries, ours, size)),
        skipped,
    )


def _run_peer(peer: Peer, scene: Scene, work: Path, size: Size) -> _Entry | str:
    if peer.needs == "SWarp" and not (shutil.which("SWarp") or shutil.which("swarp")):
        return "there is no program SWarp on the path"
    out = work / "peer.npz"
    out.unlink(missing_ok=True)
    arguments = {"folder": str(scene.folder), "out": str(out), **dict(peer.options)}
    module = f"benchmarks.peers.{peer.target}"
    if peer.needs == "SWarp":
        in_process("benchmarks.peers.swarp:prepare_swarp", {"folder": str(scene.folder)})
    runs: list[ProcessResult] = []
    for _ in range(size.repeats):
        runs.append(in_process(module, arguments, size.peer_timeout))
        # A program that takes long, or does not run at all, is not asked again.
        if runs[-1].error or runs[-1].wall > size.peer_timeout / 30:
            break
    if peer.needs == "SWarp" and not runs[-1].error:
        corrected = in_process("benchmarks.peers.swarp:swarp_corrections", arguments)
        runs[-1] = runs[-1] if not corrected.error else corrected
    if runs[-1].error:
        return runs[-1].error[:200]
    middle: Callable[[str], float] = lambda name: statistics.median(  # noqa: E731
        getattr(run, name) for run in runs
    )
    return _Entry(peer, middle("wall"), middle("cpu"), middle("peak"), score(scene, out))


def _our_figures(seconds: list[float], ours: _Entry) -> list[Figure]:
    s = ours.score
    return [
        spread("peers.ours.wall", seconds, "s", "lower"),
        spread("peers.ours.peak", [ours.peak], "MB", "lower"),
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
        "Errors in nJy. Peak: largest process. Programs run with usual settings.",
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


def _checks(entries: list[_Entry], ours: _Entry, size: Size) -> list[Check]:
    checks = [Check("Diffuse light kept, off by", abs(ours.score.diffuse - 1), 0.03)]
    if size.name == "full":
        checks.append(Check("Whole job on the peers' tract", ours.wall, 8.5, unit="s"))
        checks.append(Check("Peak memory of a worker on it", ours.peak, 600, unit="MB"))
    checks += [
        Check(f"Time of {e.peer.name} over ours", e.wall / ours.wall, 1.0, at_most=False)
        for e in entries
        if e.peer.more_than_constant
    ]
    for entry in entries:
        checks.append(
            Check(
                f"Error of {entry.peer.name} over ours",
                entry.score.error / ours.score.error,
                1.0,
                at_most=False,
            )
        )
        checks.append(
            Check(
                f"Seams of {entry.peer.name} over ours",
                entry.score.seam / ours.score.seam,
                1.0,
                at_most=False,
            )
        )
    return checks
