"""The doctor: looks at everything that a job needs, and says what to fix."""

from bgmatch_dask.service.doctor.checks import Check, examine

__all__ = ("Check", "examine")
