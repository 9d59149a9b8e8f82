"""Kernels that call compiled code of other files, and numba's search for what it has compiled."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import FunctionType

import bgmatch_dask.numerics
from bgmatch_dask.numerics import called_code
from bgmatch_dask.numerics.called_code import CALLED


def _kernels() -> list[object]:
    modules = (
        importlib.import_module(f"bgmatch_dask.numerics.{module.name}")
        for module in pkgutil.iter_modules(bgmatch_dask.numerics.__path__)
    )
    return [k for module in modules for k in vars(module).values() if hasattr(k, "py_func")]


def test_defaults_of_kernels_are_one_value() -> None:
    # With two values numba looks for its compiled code in Python at every call.
    found = [
        parameter.default
        for kernel in _kernels()
        for parameter in inspect.signature(kernel.py_func).parameters.values()  # type: ignore[attr-defined]
        if isinstance(parameter.default, int) and not isinstance(parameter.default, bool)
    ]
    assert len(found) > 1
    assert set(found) == {CALLED}


def _called(function: FunctionType, seen: set[FunctionType]) -> set[FunctionType]:
    """Return the functions of kernels that a function calls, those of these too."""
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        value = getattr(value, "py_func", value)
        if isinstance(value, FunctionType) and value not in seen:
            seen |= _called(value, seen | {value})
    return seen


def test_kernels_that_call_other_files_change_with_them() -> None:
    found = 0
    for kernel in _kernels():
        function = kernel.py_func  # type: ignore[attr-defined]
        files = {f.__module__.rpartition(".")[2] for f in _called(function, {function})}
        files -= {function.__module__.rpartition(".")[2]}
        found += bool(files)
        assert files <= set(called_code._FILES), function
        assert not files or "called" in inspect.signature(function).parameters, function
    assert found > 3
