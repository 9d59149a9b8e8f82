"""How functions are compiled: those that Python calls, and those that only compiled code calls.

Half the time that numba takes would go into what a function is wrapped in to be called from Python
and from C, and into keeping parts that are already within the kernels that call them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numba import njit
from numba.extending import register_jitable

from bgmatch_dask.numerics.kernel_cache import KernelCache

__all__ = ("inner", "kernel")

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(**options: object) -> Callable[[Function], Function]:
    """Compile a function that Python calls, at its first call; the result is kept on disk.

    Numba compiles it anew when the file that it is in has changed. One that calls an `inner`
    function of another file needs `bgmatch_dask.numerics.called_code.CALLED` as a default value.
    """
    options |= {"cache": True, "nogil": True, "no_cfunc_wrapper": True}

    def decorate(function: Function) -> Function:
        dispatcher = njit(**options)(function)  # type: ignore[call-overload]
        dispatcher._cache = KernelCache(function)  # noqa: SLF001
        compiled: Function = dispatcher
        return compiled

    return decorate


def inner(**options: object) -> Callable[[Function], Function]:
    """Compile a function into the kernels that call it; called from Python it stays Python."""
    decorate: Callable[[Function], Function] = register_jitable(no_cfunc_wrapper=True, **options)
    return decorate
