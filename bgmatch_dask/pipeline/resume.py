"""The configuration of a run as its store keeps it, so that the run can go on from there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bgmatch_dask.config import RunConfig
from bgmatch_dask.errors import StoreError
from bgmatch_dask.remote import split_options
from bgmatch_dask.store import Location
from bgmatch_dask.store.versions import run_of

__all__ = ("stored_config", "version_config", "with_whole_paths")


def with_whole_paths(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as JSON types that mean the same in every folder."""
    data = config.model_dump(mode="json")
    data["inputs"]["paths"] = [_whole(path) for path in config.inputs.paths]
    profile = Path(config.inputs.profile)
    if profile.suffix and profile.is_file():
        data["inputs"]["profile"] = str(profile.absolute())
    return data


def _whole(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())


def stored_config(location: Location, run: str) -> RunConfig:
    """Return the configuration with which a run was last started, for the place it is at now.

    Raises
    ------
    StoreError
        ``run-unknown`` when the store has no such run, ``config-corrupt`` when what it keeps
        cannot be read.
    """
    name = f"runs/{run_of(run)}/config.json"
    if not location.exists(name):
        raise StoreError(
            "run-unknown",
            f"The store has no run {run!r}",
            where=location.url,
            fix="Give its name with --run, or start it with `bgmatch run`.",
        )
    return _here(location, name, location.read_json)


def version_config(location: Location, version: str) -> RunConfig:
    """Return the configuration that a version of a run's products was made with.

    Raises
    ------
    StoreError
        As `stored_config`, which is asked where the version does not tell.
    """
    name = f"runs/{version}/version.json"
    if not location.exists(name):
        return stored_config(location, run_of(version))
    return _here(location, name, lambda path: location.read_json(path)["config"])


def _here(location: Location, name: str, read: Callable[[str], Any]) -> RunConfig:
    """Return a configuration that an object holds, for the place that the store is at now."""
    try:
        config = RunConfig.model_validate(read(name))
    except (ValueError, TypeError, KeyError, ValidationError) as error:
        raise StoreError(
            "config-corrupt",
            f"The configuration in {name} cannot be read: {error}".partition("\n")[0],
            where=location.child(name),
            fix="Give the configuration file: `bgmatch run --config FILE`.",
        ) from error
    url, options = split_options(location.url)
    place = {"url": url, "options": options}
    return config.model_copy(update={"store": config.store.model_copy(update=place)})
