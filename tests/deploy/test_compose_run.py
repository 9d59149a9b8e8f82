"""The services of the compose file as processes of this machine: its commands, its environment."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from bgmatch_dask.service.board import board_from_json
from tests.deploy.recipes import DEPLOY, ROOT, environment, load
from tests.ports import reserved_ports

pytestmark = pytest.mark.slow
DEADLINE = 200.0


class Compose:
    """Starts services of the compose file here, with names and ports of this machine."""

    def __init__(self, folder: Path, data: Path, ports: tuple[int, ...]) -> None:
        self.services = load("docker-compose.yml")["services"]
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.replaced = {
            "0.0.0.0": "127.0.0.1",
            "/job/job.yaml": str(folder / "job.yaml"),
            "://scheduler": "://127.0.0.1",
            "://s3": "://127.0.0.1",
        }
        self.replaced |= dict(zip(("8786", "8787", "9000"), map(str, ports), strict=True))
        job = (DEPLOY / "docker/job.yaml").read_text(encoding="utf-8")
        (folder / "job.yaml").write_text(job.replace("/data", str(data)), encoding="utf-8")

    def here(self, text: str) -> str:
        """Replace names of containers, addresses and ports by those of this machine."""
        names = "|".join(map(re.escape, self.replaced))
        return re.sub(names, lambda found: self.replaced[found[0]], text)

    def environment(self, name: str) -> dict[str, str]:
        given = self.services[name].get("environment", {})
        plain = {k: v.split(":-")[1].rstrip("}") if ":-" in v else v for k, v in given.items()}
        return environment(
            **{key: self.here(value) for key, value in plain.items()},
            DASK_CONFIG=str(ROOT / "deploy/dask"),
            BGMATCH_JOBS=str(self.folder / "jobs"),
            HOME=str(self.folder),
        )

    def command(self, name: str) -> list[str]:
        words = [self.here(word) for word in self.services[name]["command"]]
        return [str(self.folder) if word == "/tmp" else word for word in words]

    def start(self, name: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}-{len(self.processes)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                self.command(name),
                env=self.environment(name),
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        self.processes.append(process)
        return process

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            env=self.environment("submit"),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def await_health(self, name: str) -> None:
        """Wait until the health check of the compose file holds."""
        test = [self.here(word) for word in self.services[name]["healthcheck"]["test"][1:]]
        end = time.monotonic() + DEADLINE
        while subprocess.run(test, env=self.environment(name), capture_output=True).returncode:  # noqa: PLW1510
            assert all(p.poll() is None for p in self.processes), self.logs()
            assert time.monotonic() < end, self.logs()
            time.sleep(0.3)

    def logs(self) -> str:
        return "\n".join(p.read_text()[-2000:] for p in sorted(self.folder.glob("*.log")))

    def end(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def compose(tmp_path, small_tract):
    with reserved_ports(3) as ports:
        services = Compose(tmp_path, small_tract, ports)
        try:
            yield services
        finally:
            services.end()


def read_board(page):
    with urllib.request.urlopen(page + "boards.json", timeout=100) as answer:
        if not json.loads(answer.read()):
            return None
    with urllib.request.urlopen(page + "board.json", timeout=100) as answer:
        return board_from_json(json.loads(answer.read()))


def test_a_tract_goes_through_the_services(compose):
    pytest.importorskip("moto")
    compose.start("s3")
    compose.start("scheduler")
    compose.await_health("scheduler")
    compose.await_health("s3")
    for _ in range(compose.services["worker"]["deploy"]["replicas"]):
        compose.start("worker")
    compose.run(*compose.command("bucket"))
    # The tract is so small that one worker has done it before a slow one is there.
    count = "from distributed import Client; Client({!r}).wait_for_workers(2, timeout=200)"
    address = compose.environment("submit")["DASK_SCHEDULER_ADDRESS"]
    compose.run("python", "-c", count.format(address))
    compose.run(*compose.command("submit"))

    page = compose.here("http://0.0.0.0:8787/bgmatch/")
    end = time.monotonic() + DEADLINE
    while (board := read_board(page)) is None or not board.over:
        assert time.monotonic() < end, compose.logs()
        time.sleep(0.3)
    assert board.outcome == "finished", board.text
    assert board.store.startswith("s3://bgmatch/tract.zarr")
    assert set(board.cells) <= {"c", "."}
    assert "c" in board.cells
    assert len(board.workers) == 2
    assert "finished" in compose.run("bgmatch", "info", "s3://bgmatch/tract.zarr")
