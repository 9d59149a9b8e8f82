"""The process that `benchmarks.measure.in_process` starts."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import peak_mb, reset_peak

__all__ = ("main",)


def main(job: str) -> None:
    """Carry out one job and write down what it gave and what each call cost."""
    order = json.loads(job)
    module, _, name = order["target"].partition(":")
    value: Any = None
    error, costs = "", []
    try:
        for needed in order["imports"]:
            importlib.import_module(needed)
        function = getattr(importlib.import_module(module), name)
        for _ in range(order["calls"]):
            reset_peak()
            before, start = os.times(), time.perf_counter()
            value = function(**order["arguments"])
            wall, after = time.perf_counter() - start, os.times()
            costs.append((wall, sum(after[:4]) - sum(before[:4]), peak_mb()))
            if wall > order["long"]:
                break
    except Exception as failure:  # noqa: BLE001  A peer may fail in any way; it is reported.
        error = f"{type(failure).__name__}: {failure}"
    found = {"value": value, "error": error, "costs": costs}
    Path(order["out"]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
