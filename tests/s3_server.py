"""A real S3 server (moto's) in a process of its own on loopback, for tests of remote stores."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.ports import reserved_ports

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
    "NO_PROXY": "127.0.0.1,localhost",
}
"""What a client needs besides the address of the server."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """An S3 server that is up."""

    endpoint: str
    """Its address, ``http://127.0.0.1:<port>``."""
    process: subprocess.Popen[bytes]
    """Its process."""

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.endpoint}

    def make_bucket(self, name: str | None = None) -> str:
        """Make a bucket, empty and of a new name unless one is given, and return its URL."""
        bucket = name or f"tract-{uuid4().hex[:12]}"
        request = urllib.request.Request(f"{self.endpoint}/{bucket}", method="PUT")
        with _no_proxy().open(request, timeout=200):
            return f"s3://{bucket}"


@contextmanager
def serve_s3() -> Iterator[S3Server]:
    """Run a server on a free port until the context ends."""
    with reserved_ports(1) as (port,), tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from moto.server import main; main()"),
                *("-H", "127.0.0.1", "-p", str(port)),
            ],
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parent,
            env={**os.environ, "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(2**24)},
        )
        server = S3Server(f"http://127.0.0.1:{port}", process)
        try:
            _await_answer(server, log)
            yield server
        finally:
            process.kill()
            process.wait()


def _no_proxy() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _await_answer(server: S3Server, log: object) -> None:
    for _ in range(600):
        if server.process.poll() is not None:
            break
        try:
            with _no_proxy().open(f"{server.endpoint}/moto-api/data.json", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    log.seek(0)  # type: ignore[attr-defined]
    raise RuntimeError(f"the S3 server does not answer: {log.read()[-2000:]!r}")  # type: ignore[attr-defined]
