"""The boards of a scheduler as Prometheus metrics (text format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bgmatch_dask.service.board.state import Board

__all__ = ("CONTENT_TYPE", "metrics_text")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STAGE_METRICS = (
    ("units", "gauge", "Units of the stage.", "total"),
    ("units_done", "gauge", "Units done, those of earlier runs included.", "done"),
    ("units_rejected", "gauge", "Inputs that the units of the stage left out.", "rejected"),
    ("bytes", "gauge", "Bytes of inputs and arrays that the units moved.", "n_bytes"),
    ("stage_seconds", "gauge", "Wall time of the ended stage.", "seconds"),
    ("unit_seconds", "gauge", "Sum of the wall times of the units.", "unit_seconds"),
)
_WORKER_METRICS = (
    ("worker_units", "gauge", "Units that the worker has done.", "units"),
    ("worker_peak_bytes", "gauge", "Largest resident memory of the worker.", "peak_bytes"),
)


def metrics_text(boards: Iterable[Board]) -> str:
    """Return the metrics of all boards.

    They belong to one run each and start again when it is run again, so all are gauges.
    """
    return "\n".join(_lines(tuple(boards))) + "\n"


def _lines(boards: tuple[Board, ...]) -> Iterator[str]:
    yield from _head("run_info", "gauge", "1 for every run that the scheduler has heard of.")
    for board in boards:
        labels = {"board": board.key, "tract": board.tract, "outcome": board.outcome}
        yield _sample("run_info", labels, 1)
    yield from _head("inputs_rejected", "gauge", "Inputs of the run that were left out.")
    for board in boards:
        yield _sample("inputs_rejected", {"board": board.key}, board.n_rejected)
    for name, kind, text, field in _STAGE_METRICS:
        yield from _head(name, kind, text)
        for board in boards:
            for stage in board.stages:
                labels = {"board": board.key, "stage": stage.name}
                yield _sample(name, labels, getattr(stage, field))
    for name, kind, text, field in _WORKER_METRICS:
        yield from _head(name, kind, text)
        for board in boards:
            for worker in board.workers:
                labels = {"board": board.key, "worker": worker.name}
                yield _sample(name, labels, getattr(worker, field))


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP bgmatch_{name} {text}"
    yield f"# TYPE bgmatch_{name} {kind}"


def _sample(name: str, labels: dict[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"bgmatch_{name}{{{inside}}} {value:.10g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
