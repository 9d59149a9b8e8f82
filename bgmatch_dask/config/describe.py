"""A configuration written out for people."""

from __future__ import annotations

import yaml
from pydantic import BaseModel

from bgmatch_dask.config.run import RunConfig

__all__ = ("describe_config",)


def describe_config(config: RunConfig) -> str:
    """Return the configuration as YAML with the meaning of every field as a comment."""
    lines: list[str] = []
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            lines += ["", f"{name}:  # {type(value).__doc__}"]
            lines += _describe_section(value)
        else:
            lines += [f"# {info.description}", _yaml_line(name, value)]
    return "\n".join(lines) + "\n"


def _describe_section(section: BaseModel, indent: str = "  ") -> list[str]:
    lines: list[str] = []
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        lines.append(f"{indent}# {info.description}")
        if isinstance(value, BaseModel):
            lines += [f"{indent}{name}:", *_describe_section(value, indent + "  ")]
        else:
            lines.append(indent + _yaml_line(name, value))
    return lines


def _yaml_line(name: str, value: object) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=float("inf"))
    return f"{name}: {text.removesuffix('...' + chr(10)).strip()}"
