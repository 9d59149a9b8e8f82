"""The lock of a store: one driver at a time, and none is refused because of a dead one.

The owner is whoever made the object ``lock/<n>.json`` with the highest number, with a create-only
put, which only one can win on local disk and on object stores alike. It renews the object
every few seconds. A lock is stale when its process is known to be dead, or when its heartbeat
is old by the clock *and* does not move while it is watched, so that clocks that differ break
nothing. A stale lock is broken by making the next number, never by deleting: of two that break
it at once one wins, and an owner that was only asleep finds the higher number and stops.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bgmatch_dask.errors import StoreError
from bgmatch_dask.store.location import Location
from bgmatch_dask.store.owner import identity, known_dead

__all__ = ("LockTiming", "StoreLock", "hold_store")


@dataclass(frozen=True, slots=True)
class LockTiming:
    """How often a lock is renewed and when it is stale."""

    beat: float = 5.0
    """Seconds between heartbeats."""
    stale: float = 60.0
    """Age of the last heartbeat after which a lock may be broken [s]."""


class StoreLock:
    """The lock of a store, held by this process.

    Parameters
    ----------
    location
        Place of the store.
    purpose
        What the owner does, for people who are refused.
    timing
        Heartbeat and age of stale locks.
    """

    def __init__(self, location: Location, purpose: str, timing: LockTiming) -> None:
        self.location = location
        self.timing = timing
        self._owner = {"id": uuid.uuid4().hex, "purpose": purpose, **identity()}
        self._number = 0
        self._beats = 0
        self._renewed = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="bgmatch-lock", daemon=True)

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        StoreError
            ``lock-held`` when another driver works on the store.
        """
        newest = _newest(self.location)
        if newest:
            self._refuse_unless_stale(newest)
        self._number = newest + 1
        try:
            self._write(create=True)
        except StoreError as error:
            if error.code != "object-exists":
                raise
            raise _held(self.location, _read(self.location, self._number)) from error
        # A slower rival that saw the same free place would have made the same number.
        self._thread.start()

    def release(self) -> None:
        """Give back what `acquire` took, be it interrupted.

        The thread of the heartbeat does it, which no signal reaches: a lock that a living process
        keeps by mistake would be refused to everyone, this process included.
        """
        self._end.set()
        if not self._number:
            return
        with suppress(RuntimeError):  # It is there already, unless we were interrupted.
            self._thread.start()
        self._thread.join()

    def check(self) -> None:
        """Refuse to go on when the lock was lost while this process was asleep.

        Raises
        ------
        StoreError
            ``lock-lost``.
        """
        late = time.monotonic() - self._renewed > self.timing.stale / 2
        if late or self._end.is_set():
            self._look()

    def _look(self) -> None:
        if _newest(self.location) != self._number:
            raise StoreError(
                "lock-lost",
                "Another driver took over while this one did not answer",
                where=self.location.url,
                fix="Let the other one finish; what this one wrote so far is kept.",
            )
        self._write()

    def _beat(self) -> None:
        while not self._end.wait(self.timing.beat):
            try:
                self._look()
            except StoreError as error:
                # A storage fault may pass; a lost lock does not.
                if error.code == "lock-lost":
                    self._end.set()
        with suppress(StoreError):
            self._delete()

    def _delete(self) -> None:
        if _read(self.location, self._number).get("id") != self._owner["id"]:
            return
        # In this order no moment shows an old lock as the newest one.
        for name in self.location.list("lock"):
            if _number(name) <= self._number:
                self.location.delete(name)

    def _write(self, *, create: bool = False) -> None:
        self._beats += 1
        state = {**self._owner, "beat": self._beats, "time": time.time()}
        self.location.write_json(_name(self._number), state, create=create)
        self._renewed = time.monotonic()

    def _refuse_unless_stale(self, number: int) -> None:
        state = _read(self.location, number)
        if known_dead(state):
            return
        age = time.time() - float(state.get("time", 0.0))
        if abs(age) < self.timing.stale:
            raise _held(self.location, state)
        # By the clock it is old; clocks can differ, so that what counts is whether it moves.
        deadline = time.monotonic() + 1.5 * self.timing.beat
        while time.monotonic() < deadline:
            time.sleep(self.timing.beat / 10)
            if _newest(self.location) != number or _read(self.location, number) != state:
                raise _held(self.location, state)


@contextmanager
def hold_store(
    location: Location, purpose: str, timing: LockTiming | None = None
) -> Iterator[StoreLock]:
    """Hold the lock of a store.

    Raises
    ------
    StoreError
        ``lock-held`` when another driver works on the store.
    """
    lock = StoreLock(location, purpose, timing or LockTiming())
    try:
        lock.acquire()
        yield lock
    finally:
        lock.release()


def _name(number: int) -> str:
    return f"lock/{number:08d}.json"


def _number(name: str) -> int:
    stem = name.rsplit("/", 1)[1].split(".", maxsplit=1)[0]
    return int(stem) if stem.isdecimal() else 0


def _newest(location: Location) -> int:
    return max(map(_number, location.list("lock")), default=0)


def _read(location: Location, number: int) -> dict[str, Any]:
    """Return the state of a lock; one that is gone or unreadable says nothing."""
    try:
        state = json.loads(location.read_bytes(_name(number)))
    except (StoreError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _held(location: Location, state: dict[str, Any]) -> StoreError:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(float(state.get("time", 0.0))))
    return StoreError(
        "lock-held",
        f"Process {state.get('pid', '?')} on {state.get('host', '?')} works on this store "
        f"({state.get('purpose', '?')}; last sign of life {since} UTC)",
        where=location.url,
        fix="Wait until it is done. A lock without a sign of life for a minute is broken.",
    )
