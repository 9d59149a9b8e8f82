"""Schedulers, workers and commands as processes of their own, for tests of the service."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bgmatch_dask.cli.main import app


def wait_until(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Wait for a condition; the limit is only there to end a test that hangs."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited for: {what}"
        time.sleep(0.1)


@contextmanager
def impatient() -> Iterator[None]:
    """Give up at once a scheduler that does not answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bgmatch_dask.service.cluster._CONNECT_SECONDS", 0.3)
        yield


@dataclass
class Cluster:
    """A scheduler process with worker processes."""

    address: str
    folder: Path
    scheduler: subprocess.Popen[bytes]
    tls: Sequence[str] = ()
    gate: Sequence[str] = ()
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add_worker(
        self, *options: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start one more worker, without a nanny, so that killing it kills the worker."""
        number = len(self.workers)
        arguments = [self.address, "--nthreads", "1", "--no-nanny", "--name", f"w{number}"]
        arguments += ["--local-directory", str(self.folder / f"w{number}")]
        arguments += ["--host", f"{self.address.split(':')[0]}://127.0.0.1"]
        arguments += ["--dashboard-address", "127.0.0.1:0"]
        log = self.folder / f"worker{number}.log"
        arguments += [*self.tls, *self.gate, *options]
        worker = _dask_process("dask_worker", arguments, log, environment)
        self.workers.append(worker)
        return worker

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no unit begin its work, so that whoever looks late sees what is to be seen."""
        closed = self.folder / "closed"
        closed.touch()
        try:
            yield
        finally:
            closed.unlink()


@contextmanager
def cluster_of_processes(
    folder: Path,
    workers: int = 2,
    *,
    tls: Sequence[str] = (),
    protocol: str = "tcp",
    gated: bool = False,
) -> Iterator[Cluster]:
    """Yield a cluster of processes; all of them end with the context.

    Workers with a gate can be `held`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scheduler.json"
    arguments = ["--host", f"{protocol}://127.0.0.1", "--port", "0", *tls]
    arguments += ["--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(file)]
    with ExitStack() as stack:
        scheduler = _dask_process("dask_scheduler", arguments, folder / "scheduler.log", None)
        stack.callback(end, scheduler)
        wait_until(lambda: _address(file), "the scheduler")
        gate = ("--preload", str(Path(__file__).with_name("gate.py"))) if gated else ()
        cluster = Cluster(str(_address(file)), folder, scheduler, tls, gate)
        stack.callback(lambda: [end(worker) for worker in cluster.workers])
        for _ in range(workers):
            cluster.add_worker()
        yield cluster


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process of ours and wait for it."""
    process.kill()
    process.wait()


def bgmatch(*words: str, state: Path) -> subprocess.CompletedProcess[str]:
    """Run a command, here, with a folder for what it remembers of its jobs."""
    done = CliRunner().invoke(app, words, env={"BGMATCH_STATE": str(state)})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


def _address(file: Path) -> str | None:
    import json

    try:
        return str(json.loads(file.read_text())["address"])
    except (OSError, ValueError):
        return None


def _dask_process(
    module: str, arguments: list[str], log: Path, environment: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            # Drivers beside a scheduler are known by it as the test's own.
            env={**os.environ, "BGMATCH_STATE": str(log.parent), **(environment or {})},
        )
