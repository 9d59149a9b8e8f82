"""Loads what workers need: importing this module is all that it is for."""

from __future__ import annotations

import gc
from contextlib import suppress

import distributed.nanny  # noqa: F401

import bgmatch_dask.pipeline.coadd_unit
import bgmatch_dask.pipeline.difference
import bgmatch_dask.pipeline.tasks
import bgmatch_dask.pipeline.trace  # noqa: F401
from bgmatch_dask.numerics.compiled import load_compiled

# What cannot be loaded fails again in the unit that needs it, and is told of there.
with suppress(Exception):
    load_compiled()
# What is here stays; looking for garbage in it would also copy the memory that workers share.
gc.freeze()
