"""A number that changes with the compiled code that is called from files other than its own.

numba's cache looks at the file of a kernel alone, not at those of the kernels that it calls, but it
tells calls with other default values apart: such a kernel has `CALLED` as a default value.
"""

from __future__ import annotations

import zlib
from pathlib import Path

__all__ = ("CALLED",)

_FILES = ("_bin_clip", "_bin_quantiles", "_stack_rows", "median", "row_polynomials", "splines")

CALLED = zlib.crc32(
    b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _FILES)
)
"""One value for all kernels. numba takes defaults of one type for equal when it looks for what it
has compiled, and with different ones it looks again, in Python, at every call."""
