"""One driver at a time; a dead one never stands in the way, a living one always does."""

import os
import subprocess
import sys
import threading
import time

import pytest

from bgmatch_dask.errors import StoreError
from bgmatch_dask.store import Location
from bgmatch_dask.store.lock import LockTiming, StoreLock, hold_store

FAST = LockTiming(beat=0.2, stale=30)


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path):
    if request.param == "local":
        return Location.of(str(tmp_path / "t.zarr"))
    return Location.of(f"{request.getfixturevalue('s3').make_bucket()}/t.zarr")


def _code(place, timing=FAST):
    with pytest.raises(StoreError) as caught, hold_store(place, "second", timing):
        pass
    return caught.value.code


def _newest(place):
    return max(place.list("lock"))


def _make_foreign(location, moment):
    """Let the newest lock be one of another machine, whose heart beat last at a moment."""
    name = _newest(location)
    state = location.read_json(name) | {"place": "another machine", "time": moment}
    location.write_json(name, state)


def test_a_second_driver_is_refused_until_the_first_is_done(place):
    with hold_store(place, "first", FAST):
        assert _code(place) == "lock-held"
    assert list(place.list("lock")) == []
    with hold_store(place, "second", FAST) as lock:
        lock.check()


def test_the_refusal_says_who_works_there(place):
    with (
        hold_store(place, "run main"),
        pytest.raises(StoreError, match="run main") as caught,
        hold_store(place, "second"),
    ):
        pass
    assert str(os.getpid()) in caught.value.what


def test_a_dead_process_holds_nothing(tmp_path):
    place = Location.of(str(tmp_path / "t.zarr"))
    code = (
        "import os, sys; from bgmatch_dask.store import Location;"
        "from bgmatch_dask.store.lock import hold_store\n"
        "with hold_store(Location.of(sys.argv[1]), 'killed'): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, place.url], timeout=200, check=False)
    assert len(list(place.list("lock"))) == 1
    with hold_store(place, "next") as lock:
        lock.check()
        assert lock.location.read_json(_newest(place))["purpose"] == "next"
    assert list(place.list("lock")) == []


def test_a_lock_from_elsewhere_is_broken_only_when_it_no_longer_moves(place):
    with hold_store(place, "far away", LockTiming(beat=3600, stale=3600)):
        # A process of another machine, of which nothing but its heartbeat is known.
        _make_foreign(place, time.time())
        assert _code(place) == "lock-held"
        _make_foreign(place, time.time() - 3600)
        with hold_store(place, "next", FAST):
            pass


def test_a_clock_that_goes_wrong_breaks_no_living_lock(place):
    patient = LockTiming(beat=20, stale=30)
    with hold_store(place, "far away", FAST) as lock:
        lock._owner["place"] = "another machine"

        def an_hour_behind(*, create=False):
            lock._beats += 1
            state = {**lock._owner, "beat": lock._beats, "time": time.time() - 3600}
            place.write_json(_newest(place), state)

        lock._write = an_hour_behind
        an_hour_behind()
        assert _code(place, patient) == "lock-held"


def test_one_that_was_only_asleep_finds_out_and_stops(place):
    with hold_store(place, "sleeper", LockTiming(beat=3600, stale=0.2)) as sleeper:
        _make_foreign(place, time.time() - 3600)
        with hold_store(place, "next", FAST) as winner:
            time.sleep(0.15)
            with pytest.raises(StoreError) as caught:
                sleeper.check()
            assert caught.value.code == "lock-lost"
            winner.check()


def test_an_interrupted_owner_gives_the_lock_back(place, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), hold_store(place, "first", FAST) as lock:
        monkeypatch.setattr(lock._thread, "join", interrupted)
    threading.Thread.join(lock._thread)
    assert list(place.list("lock")) == []

    def write_and_die(lock, write=StoreLock._write, **how):
        write(lock, **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(StoreLock, "_write", write_and_die)
    with pytest.raises(KeyboardInterrupt), hold_store(place, "second", FAST):
        pass
    assert list(place.list("lock")) == []


def test_a_damaged_lock_is_like_one_without_a_sign_of_life(place):
    place.write_bytes("lock/00000003.json", b"{")
    with hold_store(place, "next", FAST) as lock:
        lock.check()
