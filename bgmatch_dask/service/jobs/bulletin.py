"""What drivers post on the scheduler, for those who reach the scheduler and not the store.

What is kept there is small and bounded, and only a copy: the store is what counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from distributed import Client
from distributed.diagnostics.plugin import SchedulerPlugin

from bgmatch_dask.errors import ClusterError
from bgmatch_dask.service.versions import address_of

__all__ = ("Bulletin",)

_MOST_JOBS = 100


class _JobsPlugin(SchedulerPlugin):
    """Keeps posts in the scheduler's process and answers for them."""

    name = "bgmatch-jobs"
    idempotent = True

    def __init__(self) -> None:
        self._posts: dict[str, dict[str, Any]] = {}

    async def start(self, scheduler: Any) -> None:  # noqa: ANN401
        """Answer on the scheduler's own port."""
        scheduler.handlers |= {
            "bgmatch_post": self.post,
            "bgmatch_posts": self.posts,
            "bgmatch_cancel": self.cancel,
        }

    async def post(self, entry: Mapping[str, Any]) -> bool:
        """Keep a post; return whether someone wants this attempt of the job to stop."""
        record = entry["record"]
        cancel = self._posts.pop(record["id"], {}).get("cancel", 0)
        self._posts[record["id"]] = {**entry, "at": time.time(), "cancel": cancel}
        while len(self._posts) > _MOST_JOBS:
            del self._posts[next(iter(self._posts))]
        return bool(cancel == record["attempt"])

    async def posts(self) -> list[dict[str, Any]]:
        """Return all posts, each with its age by this clock, which no reader's clock disturbs."""
        now = time.time()
        return [{**entry, "age": now - entry["at"]} for entry in self._posts.values()]

    async def cancel(self, job: str) -> bool:
        """Note that a job is to stop; return whether it is known here."""
        entry = self._posts.get(job)
        if entry is not None:
            entry["cancel"] = entry["record"]["attempt"]
        return entry is not None


class Bulletin:
    """The posts of jobs on a scheduler.

    Parameters
    ----------
    client
        A client of the scheduler.

    Raises
    ------
    ClusterError
        ``scheduler-without-bgmatch``.
    """

    def __init__(self, client: Client) -> None:
        self._client: Any = client
        try:
            client.register_plugin(_JobsPlugin())
        except (ImportError, AttributeError) as error:
            raise ClusterError(
                "scheduler-without-bgmatch",
                f"The scheduler cannot load bgmatch_dask: {error}",
                where=address_of(client),
                fix="Install the same requirements.lock on the scheduler, or use one image.",
            ) from error

    def post(self, entry: Mapping[str, Any]) -> bool:
        """Post the state of a job; return whether someone wants this attempt to stop.

        Parameters
        ----------
        entry
            ``record``, and ``runs`` with ``beat``, ``board`` and ``log`` of each run.
        """
        return bool(self._ask("bgmatch_post", entry=entry))

    def read(self) -> list[dict[str, Any]]:
        """Return all posts, the oldest first, each with its ``age`` [s]."""
        return list(self._ask("bgmatch_posts"))

    def ask_to_cancel(self, job: str) -> bool:
        """Ask the driver of a job to stop; return whether the job is known here."""
        return bool(self._ask("bgmatch_cancel", job=job))

    def _ask(self, name: str, **arguments: Any) -> Any:  # noqa: ANN401
        return self._client.sync(getattr(self._client.scheduler, name), **arguments)
