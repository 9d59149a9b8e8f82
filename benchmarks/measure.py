"""Clocks and meters: repeats in this process, whole programs in a process of their own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

__all__ = (
    "ProcessResult",
    "in_process",
    "peak_mb",
    "processes",
    "repeat",
    "reset_peak",
    "seconds",
    "worker_environment",
)

ROOT = Path(__file__).parents[1]


def seconds(call: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def repeat(call: Callable[[], object], repeats: int) -> list[float]:
    """Return the wall times of repeated calls, after one that is not counted."""
    call()
    return [seconds(call) for _ in range(repeats)]


def reset_peak() -> None:
    """Start the kernel's peak memory of this process anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_mb(pid: int | str = "self") -> float:
    """Return the peak resident memory of a process [MB], from the kernel where it tells."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM"):
                return float(line.split()[1]) / 1000
    except (OSError, UnicodeDecodeError):
        return 0.0
    process = psutil.Process() if pid == "self" else psutil.Process(int(pid))
    return float(process.memory_info().rss / 1e6)


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """What a program gave, and what it cost."""

    value: Any
    """What its function returned; None when it failed."""
    error: str
    """Why it failed; empty when it did not."""
    walls: tuple[float, ...] = ()
    """Wall time of each call that counts, without the start of the process and its imports [s]."""
    cpus: tuple[float, ...] = ()
    """Processor time of each, that of programs it started included [s]."""
    peak: float = 0.0
    """Peak resident memory of the largest process [MB]."""

    @property
    def wall(self) -> float:
        """Median wall time [s]."""
        return statistics.median(self.walls)

    @property
    def cpu(self) -> float:
        """Median processor time [s]."""
        return statistics.median(self.cpus)


def worker_environment() -> dict[str, str]:
    """Return an environment in which `benchmarks` is importable and libraries use one thread."""
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    caps = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return os.environ | caps | {"PYTHONPATH": path, "MPLBACKEND": "Agg"}


def in_process(
    target: str,
    arguments: Mapping[str, Any],
    timeout: float = 900,
    *,
    imports: Sequence[str] = (),
    calls: int = 1,
    long: float = 0.0,
) -> ProcessResult:
    """Call ``module:function`` with JSON arguments in a fresh process, and meter it.

    Parameters
    ----------
    target
        The function; it returns JSON.
    arguments
        Its arguments.
    timeout
        Longest life of the process [s].
    imports
        Modules that are imported before the clock starts.
    calls
        Number of calls; the first of several does not count.
    long
        A call of more seconds is the last one, and counts if it is the only one.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        out = Path(folder) / "out.json"
        order: dict[str, Any] = {"target": target, "arguments": dict(arguments), "out": str(out)}
        order |= {"imports": list(imports), "calls": calls, "long": long}
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.child", json.dumps(order)],
            env=worker_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        descendants = _Descendants(process.pid)
        with descendants:
            try:
                _, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                _end(process)
                return ProcessResult(None, f"longer than {timeout:g} s")
        if not out.exists():
            lines = [line for line in errors.strip().splitlines() if line.strip()]
            return ProcessResult(None, lines[-1] if lines else "it died")
        found = json.loads(out.read_text(encoding="utf-8"))
    costs = found["costs"][1:] or found["costs"]
    walls, cpus, peaks = zip(*costs, strict=True) if costs else ((), (), (0.0,))
    return ProcessResult(found["value"], found["error"], walls, cpus, max(*peaks, descendants.peak))


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and what it started."""
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.communicate()


class _Descendants:
    """Watches the peak memory of the programs that a process starts."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            try:
                children = psutil.Process(self.pid).children(recursive=True)
                self.peak = max([self.peak, *(peak_mb(child.pid) for child in children)])
            except psutil.Error:
                continue


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of fresh processes, for floors that know nothing of Dask."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        list(pool.map(abs, range(4 * count)))
        yield pool
