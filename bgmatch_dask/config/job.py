"""A job file: one configuration, or one for each of several tracts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bgmatch_dask.config.read import check_config, merge_values, override_value, read_values
from bgmatch_dask.config.run import RunConfig
from bgmatch_dask.errors import ConfigError

__all__ = ("load_job",)


def load_job(
    path: str | Path, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None
) -> tuple[RunConfig, ...]:
    """Read a job file and return one configuration for each of its runs.

    A job file is a configuration file. Its list ``tracts``, if there is one, gives for each tract
    what differs from the rest of the file, e.g. inputs, store and run.

    Parameters
    ----------
    path, overrides, values
        As for `bgmatch_dask.config.load_config`; overrides and values hold for all tracts.

    Raises
    ------
    ConfigError
        As `bgmatch_dask.config.load_config`; ``job-tracts`` when ``tracts`` is not a list of
        sections, one of them sets the cluster, or two write the same run of the same store.
    """
    data = read_values(Path(path))
    tracts = _tracts(data.pop("tracts", [{}]), str(path))
    configs = []
    for tract in tracts:
        merged: dict[str, Any] = {}
        for part in (data, tract, values or {}):
            merge_values(merged, part)
        for item in overrides:
            override_value(merged, item)
        configs.append(check_config(merged, str(path)))
    places = [(config.store.url, config.run) for config in configs]
    for place in places:
        if places.count(place) > 1:
            raise ConfigError(
                "job-tracts",
                f"Two tracts write the run {place[1]!r} of the store {place[0]!r}",
                where=str(path),
                fix="Give each tract its own store.url, or its own run.",
            )
    return tuple(configs)


def _tracts(value: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(v, dict) for v in value):
        raise ConfigError(
            "job-tracts",
            "tracts is not a list of sections",
            where=where,
            fix="For example: tracts: [{store: {url: a.zarr}, inputs: {paths: [a/*.fits]}}].",
        )
    if any("cluster" in tract for tract in value):
        raise ConfigError(
            "job-tracts",
            "A tract sets the cluster, which all tracts of a job share",
            where=where,
            fix="Set cluster at the top of the file.",
        )
    return value
