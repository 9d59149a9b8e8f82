"""Loads what workers need: importing this module is all that it is for."""

from __future__ import annotations

import gc
from contextlib import suppress
from importlib import import_module

from bgmatch_dask.numerics.compiled import load_compiled

_MODULES = (
    "distributed.nanny",
    "bgmatch_dask.pipeline.attempt",
    "bgmatch_dask.pipeline.coadd_unit",
    "bgmatch_dask.pipeline.difference",
    "bgmatch_dask.pipeline.tasks",
    "bgmatch_dask.pipeline.together",
    "bgmatch_dask.pipeline.trace",
    "bgmatch_dask.report.figures",
    "bgmatch_dask.report.offset_maps",
    "bgmatch_dask.report.pictures",
    "bgmatch_dask.warps.simulation",
    # What matplotlib imports when it draws on the sky.
    "astropy.visualization.wcsaxes",
)

# What cannot be loaded fails again in the unit that needs it, and is told of there.
for _name in _MODULES:
    with suppress(Exception):
        import_module(_name)
with suppress(Exception):
    load_compiled()
# What is here stays; looking for garbage in it would also copy the memory that workers share.
gc.freeze()
