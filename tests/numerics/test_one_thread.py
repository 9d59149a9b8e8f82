"""One thread for linear algebra until the last of those who need it has left."""

from __future__ import annotations

import sys

import scipy.linalg  # noqa: F401  (loads its library)
from threadpoolctl import threadpool_info, threadpool_limits

from bgmatch_dask.numerics.one_thread import one_thread


def threads() -> set[int]:
    return {
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    }


def test_the_first_to_leave_leaves_the_others_alone():
    with threadpool_limits(2):
        first, second = one_thread(), one_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == {2}


def test_threads_of_python_take_short_turns_until_then():
    before = sys.getswitchinterval()
    with one_thread():
        with one_thread():
            pass
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before
