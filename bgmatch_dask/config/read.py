"""A configuration read from files and command lines, and what is wrong with it."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from bgmatch_dask.config.run import RunConfig
from bgmatch_dask.errors import ConfigError

__all__ = (
    "check_config",
    "config_digest",
    "load_config",
    "merge_values",
    "override_value",
    "read_values",
)


def load_config(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Read, override and check a configuration.

    Parameters
    ----------
    path
        YAML (``.yaml``, ``.yml``) or TOML (``.toml``) file; None for the defaults.
    overrides
        Items ``section.field=value``; the value is read as YAML.
    values
        Nested values that win over the file but not over ``overrides``; None entries are skipped.

    Raises
    ------
    ConfigError
        ``config-unreadable``, ``config-override`` or ``config-invalid``.
    """
    data = read_values(Path(path)) if path is not None else {}
    merge_values(data, values or {})
    for item in overrides:
        override_value(data, item)
    return check_config(data, str(path or "command line"))


def check_config(data: Mapping[str, Any], where: str) -> RunConfig:
    """Return the checked configuration of nested values.

    Raises
    ------
    ConfigError
        ``config-invalid``.
    """
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise _explain(error, where) from None


def config_digest(*sections: BaseModel) -> str:
    """Return a short stable digest of configuration sections (16 hex digits)."""
    text = json.dumps([s.model_dump(mode="json") for s in sections], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def read_values(path: Path) -> dict[str, Any]:
    """Return what a YAML or TOML file says, unchecked."""
    try:
        text = path.read_text(encoding="utf-8")
        toml = path.suffix.lower() == ".toml"
        data = tomllib.loads(text) if toml else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            "config-unreadable",
            f"The configuration cannot be read: {error}",
            where=str(path),
            fix="Give a YAML or TOML file.",
        ) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            "config-unreadable", "The configuration is not a table of sections", where=str(path)
        )
    # A section whose fields are all commented out is empty, which YAML reads as null.
    return {key: value for key, value in data.items() if value is not None}


def merge_values(data: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Put nested values over others in place; None entries are skipped."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            branch = data.setdefault(key, {})
            if isinstance(branch, dict):
                merge_values(branch, value)
        elif value is not None:
            data[key] = value


def override_value(data: dict[str, Any], item: str) -> None:
    """Put one item ``section.field=value`` over nested values in place."""
    name, equals, text = item.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(
            "config-override",
            f"{item!r} is not of the form section.field=value",
            fix="For example: --set background.bin_size=64.",
        )
    branch = data
    for key in keys[:-1]:
        branch = branch.setdefault(key, {})
        if not isinstance(branch, dict):
            raise ConfigError("config-override", f"{name!r} goes through a value, not a section")
    try:
        branch[keys[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            "config-override",
            f"The value of {name.strip()!r} is not YAML: {error}",
            fix="Quote it, for example: --set 'store.url=\"a, b\"'.",
        ) from error


def _explain(error: ValidationError, where: str) -> ConfigError:
    found = error.errors()
    first, field = found[0], _field_of(found[0]["loc"])
    messages = [
        e["msg"].removeprefix("Value error, ") for e in found if _field_of(e["loc"]) == field
    ]
    what = f"{field}: {', or: '.join(dict.fromkeys(messages))}"
    fix = "See `bgmatch config show` for all fields."
    if first["type"] == "extra_forbidden":
        names = [*RunConfig.model_fields, *_field_names(RunConfig)]
        near = difflib.get_close_matches(field, names, n=1, cutoff=0.5)
        what = f"There is no field {field!r}"
        fix = f"Did you mean {near[0]!r}?" if near else fix
        if field == "tracts":
            fix = "A job of several tracts is started with `bgmatch submit`."
    return ConfigError("config-invalid", what, where=where, fix=fix)


def _field_of(loc: tuple[int | str, ...]) -> str:
    """Return the name of the field at fault, without the branches of a union or the item."""
    model: type[BaseModel] = RunConfig
    names: list[str] = []
    for part in loc:
        names.append(str(part))
        info = model.model_fields.get(str(part))
        kind = info.annotation if info else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        model = kind
    return ".".join(names)


def _field_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += _field_names(kind, f"{prefix}{name}.")
        else:
            names.append(f"{prefix}{name}")
    return names
