"""Compiled loops: loading at once what numba keeps on disk."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from numba.core.dispatcher import Dispatcher

__all__ = ("any_compiled", "load_compiled")


def load_compiled() -> int:
    """Load all variants of the loops of imported modules that were compiled on this machine before.

    Each is otherwise loaded when it is first called. Nothing is compiled.

    Returns
    -------
    int
        How many were loaded.
    """
    loaded = 0
    for loop in list(_loops()):
        for signature in _kept(loop):
            if signature not in loop.overloads:
                loop.compile(signature)
                loaded += 1
    return loaded


def any_compiled() -> bool:
    """Whether any loop of imported modules was compiled on this machine before."""
    return any(_kept(loop) for loop in _loops())


def _loops() -> Iterator[Any]:
    package = __name__.partition(".")[0]
    seen = set()
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}."):
            for value in vars(module).values():
                if isinstance(value, Dispatcher) and value not in seen:
                    seen.add(value)
                    yield value


def _kept(loop: Any) -> list[tuple[object, ...]]:  # noqa: ANN401
    """Return the signatures that numba keeps; none when it tells them in another way than now."""
    try:
        cache = loop._cache  # noqa: SLF001
        index = cache._cache_file._load_index()  # noqa: SLF001
        codegen = loop.targetctx.codegen()
        # A folder may be shared with machines that have other processors.
        return [key[0] for key in index if key == cache._index_key(key[0], codegen)]  # noqa: SLF001
    except (AttributeError, OSError):
        return []
