"""What a job is and what its driver last said: small values that lie in the store as JSON."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bgmatch_dask.config import RunConfig
from bgmatch_dask.errors import StoreError
from bgmatch_dask.store.location import normalise_url

__all__ = ("OVER", "Beat", "JobRecord", "RunPlace", "State", "new_record")

State = Literal["waiting", "running", "finished", "failed", "cancelled", "interrupted"]
OVER: tuple[State, ...] = ("finished", "failed", "cancelled", "interrupted")
"""States in which no driver works."""

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class RunPlace:
    """Where one run of a job lies."""

    store: str
    """URL of its store; options of a remote one are its query."""
    run: str
    """Name of the run inside the store."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it was submitted."""

    id: str
    """Identifier, unique without any registry."""
    created: float
    """When it was submitted [s since 1970]."""
    submitted_from: str
    """Host of the submitter."""
    configs: tuple[Mapping[str, Any], ...]
    """Configuration of every run, as JSON types."""
    attempt: int = 1
    """Counts the drivers that the job has had."""

    @property
    def runs(self) -> tuple[RunPlace, ...]:
        """The places of its runs."""
        return tuple(
            RunPlace(normalise_url(c["store"]["url"], c["store"]["options"]), c["run"])
            for c in self.configs
        )

    def run_configs(self) -> tuple[RunConfig, ...]:
        """Return the checked configurations."""
        return tuple(RunConfig.model_validate(config) for config in self.configs)

    def to_json(self) -> dict[str, Any]:
        """Return JSON types."""
        return {"schema": _SCHEMA, **asdict(self), "configs": [dict(c) for c in self.configs]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> JobRecord:
        """Return the record that `to_json` wrote.

        Raises
        ------
        StoreError
            ``job-unreadable`` when it is of another version or damaged.
        """
        try:
            _check_schema(data["schema"])
            values = {name: data[name] for name in cls.__dataclass_fields__}
            return cls(**{**values, "configs": tuple(data["configs"])})
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                "job-unreadable",
                f"The record of a job cannot be read: {error}",
                fix="Use the version of bgmatch that submitted it.",
            ) from error


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life of a driver, for one run."""

    job: str
    """Identifier of the job."""
    attempt: int
    """Which driver of the job."""
    state: State
    """What the driver says of the run."""
    text: str = ""
    """One sentence for people."""
    number: int = 0
    """Counts the beats."""
    time: float = 0.0
    """When it was written, by the clock of the driver [s since 1970]."""
    owner: Mapping[str, Any] = field(default_factory=dict)
    """The driver's process, see `bgmatch_dask.store.owner.identity`."""
    scheduler: str = ""
    """Address of the scheduler."""
    dashboard: str = ""
    """Address of its dashboard."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Beat:
        """Return the beat that `to_json` wrote; fields of other versions are left out."""
        return cls(**{k: v for k, v in data.items() if k in cls.__dataclass_fields__})


def _check_schema(schema: object) -> None:
    if schema != _SCHEMA:
        raise ValueError(f"its schema is {schema!r}")


def new_record(configs: Sequence[RunConfig]) -> JobRecord:
    """Return the record of a new job; its identifier begins with the time."""
    now = time.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return JobRecord(
        id=f"{stamp}-{secrets.token_hex(2)}",
        created=now,
        submitted_from=socket.gethostname(),
        configs=tuple(config.model_dump(mode="json") for config in configs),
    )
