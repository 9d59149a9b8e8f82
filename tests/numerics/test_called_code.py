"""Kernels that call compiled code of other files, and numba's search for what it has compiled."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import bgmatch_dask.numerics
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
