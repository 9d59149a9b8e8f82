"""The configuration: one model, every field documented, unknown fields refused.

Values come, weakest first, from the defaults, a YAML or TOML file, and ``--set a.b=value``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from bgmatch_dask.errors import ConfigError
from bgmatch_dask.maskplanes import bits_of

__all__ = (
    "BackgroundConfig",
    "ClusterConfig",
    "CoaddConfig",
    "InputConfig",
    "MatchConfig",
    "PerWarpSection",
    "ReferenceConfig",
    "RunConfig",
    "StoreConfig",
    "TractConfig",
    "config_digest",
    "describe_config",
    "load_config",
)


Positive = Annotated[int, Field(ge=1)]


def _known_planes(names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        bits_of(names)
    except ConfigError as error:
        raise ValueError(f"{error.what}. {error.fix}") from None
    return names


PlaneNames = Annotated[tuple[str, ...], AfterValidator(_known_planes)]


class _Section(BaseModel):
    # Labels such as 9813 are numbers in YAML and text here.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )


class InputConfig(_Section):
    """What is read."""

    paths: tuple[str, ...] = ()
    """Files, directories or glob patterns of the inputs."""
    profile: str = "lsst"
    """Reader profile: `lsst`, `2mass`, `sdss`, `generic`, or the path of a profile file (YAML)."""
    on_bad_input: Literal["skip", "fail"] = "skip"
    """`skip`: leave a bad input out, report it, exit with 3. `fail`: stop at the first one."""
    max_megapixels: float = Field(default=400.0, gt=0)
    """Refuse an image that claims more pixels than this [Mpix]."""

    @field_validator("paths", mode="before")
    @classmethod
    def _one_path(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class TractConfig(_Section):
    """Where the tract lies and how it is cut. Empty values are taken from the inputs."""

    label: str = Field(default="tract", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")
    """Name of the tract, used in titles and headers."""
    ra: float | None = Field(default=None, ge=0, lt=360)
    """Right ascension of the tract centre [deg, ICRS]; set together with `dec`."""
    dec: float | None = Field(default=None, ge=-90, le=90)
    """Declination of the tract centre [deg, ICRS]."""
    width: int | None = Field(default=None, ge=1)
    """Width of the tract [pixels]; rounded up to whole patches."""
    height: int | None = Field(default=None, ge=1)
    """Height of the tract [pixels]; rounded up to whole patches."""
    pixel_scale: float | None = Field(default=None, gt=0)
    """Pixel size [arcsec]; default: the median of the inputs."""
    patch_inner: Positive | tuple[Positive, Positive] | None = None
    """Inner size of a patch [pixels], a number or (width, height); default: the warps' own."""
    border: int | None = Field(default=None, ge=0)
    """Border around the inner box [pixels]; default from the warps or 0."""
    max_extent: float = Field(default=4.0, gt=0)
    """An input further than half of this from the middle of all inputs is refused [deg]."""

    @model_validator(mode="after")
    def _whole_centre(self) -> Self:
        if (self.ra is None) != (self.dec is None):
            raise ValueError("ra and dec go together: set both, or neither")
        return self


class StoreConfig(_Section):
    """Where and how pixels are kept."""

    url: str = "tract.zarr"
    """Place of the store: a path, `file://…` or `s3://…`."""
    chunk: int = Field(default=1000, ge=16)
    """Target size of a chunk [pixels]; the nearest exact divisor of the plane is used."""


class BackgroundConfig(_Section):
    """How backgrounds are measured on superpixels."""

    bin_size: int = Field(default=128, ge=4)
    """Size of a superpixel [pixels] (upstream: xBin, yBin)."""
    n_sigma: float = Field(default=3.0, gt=0)
    """Clipping threshold in sigma (upstream: numSigmaClip)."""
    n_iter: int = Field(default=3, ge=1)
    """Number of clipping iterations (upstream: numIter)."""
    min_frac: float = Field(default=0.1, ge=0, le=1)
    """Smallest share of good pixels that a superpixel needs to be used (upstream: minFrac)."""
    mask: PlaneNames = (
        "BAD",
        "SAT",
        "CR",
        "EDGE",
        "NO_DATA",
        "SENSOR_EDGE",
        "STREAK",
        "UNMASKEDNAN",
    )
    """Mask planes whose pixels are never used (upstream: mask)."""


class ReferenceConfig(_Section):
    """How the reference visit is chosen."""

    visit: str | None = None
    """Visit to use as the reference (upstream: refWarpVisit); default: lowest cost."""
    weight_chi2: float = Field(default=0.3, ge=0, le=1)
    """Weight of the χ² of a plane (upstream: bestRefWeightChi2)."""
    weight_variance: float = Field(default=0.3, ge=0, le=1)
    """Weight of the variance (upstream: bestRefWeightVariance)."""
    weight_coverage: float = Field(default=0.4, ge=0, le=1)
    """Weight of the measured coverage (upstream: bestRefWeightGlobalCoverage)."""


class MatchConfig(_Section):
    """How offsets are modelled and solved."""

    method: Literal["joint", "per_warp"] = "joint"
    """`joint`: all visits over the tract in one solution; `per_warp`: each warp alone."""
    order: Literal["surface"] | Annotated[int, Field(ge=0, le=6)] = "surface"
    """`surface`: smooth superpixel grid; 0…6: one polynomial of this order per visit."""
    smoothing: float | None = Field(default=None, ge=0)
    """Strength of the smoothness prior; default: chosen from the data."""
    mask_detected: bool = True
    """Leave detected sources out of the differences (needed where seeing differs)."""
    outlier_sigma: float | None = Field(default=4.0, gt=0)
    """Leave footprints beyond this many sigma out of a difference (trails, transients); or none."""
    hubs: int | None = Field(default=None, ge=1)
    """Largest number of hub visits; default: chosen from the coverage."""
    gate_ratio: float = Field(default=1.1, gt=0)
    """Largest matched MSE / difference variance of a match (upstream: maxMatchResidualRatio)."""
    gate_rms: float | None = Field(default=None, gt=0)
    """Largest fit RMS of a match [image unit] (upstream: maxMatchResidualRMS); default: none."""
    write_warps: bool = False
    """Write matched warps to the store; otherwise they are computed when read."""


class PerWarpSection(_Section):
    """How each warp is modelled where match.method is per_warp; masks and clips: background."""

    polynomial: bool = False
    """Fit a polynomial to the cells instead of a spline (upstream: usePolynomial)."""
    order: int = Field(default=8, ge=0)
    """Highest total degree of the polynomial (upstream: order)."""
    cell_size: int = Field(default=256, ge=4)
    """Size of a cell, about [pixels] (upstream: binSize)."""
    statistic: Literal["MEAN", "MEDIAN", "MEANCLIP"] = "MEAN"
    """Value of a cell (upstream: gridStatistic)."""
    interpolation: Literal["CONSTANT", "LINEAR", "NATURAL_SPLINE", "AKIMA_SPLINE"] = "AKIMA_SPLINE"
    """Interpolation of a spline (upstream: interpStyle)."""
    undersample: Literal["REDUCE_INTERP_ORDER", "THROW_EXCEPTION", "INCREASE_NXNYSAMPLE"] = (
        "REDUCE_INTERP_ORDER"
    )
    """What to do with too few cells (upstream: undersampleStyle)."""
    weighting: Literal["inverse_variance", "inverse_sigma", "none"] = "inverse_variance"
    """Weight of a cell in a polynomial fit (upstream: approxWeighting)."""


class CoaddConfig(_Section):
    """How matched warps are stacked."""

    mask: PlaneNames = ("BAD", "SAT", "CR", "EDGE", "NO_DATA", "SENSOR_EDGE", "STREAK")
    """Mask planes whose pixels are left out of the coadd."""
    unmatched: bool = True
    """Make the coadd of the unmatched warps as well, for comparison."""


class ClusterConfig(_Section):
    """Where the work runs."""

    scheduler: str | None = None
    """Address of a running Dask scheduler; default: a local cluster of processes."""
    workers: int = Field(default=2, ge=1)
    """Worker processes of the local cluster, one thread each."""
    memory_limit: str = "auto"
    """Memory of one local worker, e.g. `4GB`."""
    dashboard: str = "127.0.0.1:0"
    """Address of the local dashboard (port 0: a free one)."""


class RunConfig(_Section):
    """Everything that one run needs."""

    run: str = Field(default="main", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Name of the run inside the store."""
    inputs: InputConfig = InputConfig()
    tract: TractConfig = TractConfig()
    store: StoreConfig = StoreConfig()
    background: BackgroundConfig = BackgroundConfig()
    reference: ReferenceConfig = ReferenceConfig()
    match: MatchConfig = MatchConfig()
    per_warp: PerWarpSection = PerWarpSection()
    coadd: CoaddConfig = CoaddConfig()
    cluster: ClusterConfig = ClusterConfig()


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
    data = _read_file(Path(path)) if path is not None else {}
    _merge(data, values or {})
    for item in overrides:
        _override(data, item)
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise _explain(error, str(path or "command line")) from None


def config_digest(*sections: BaseModel) -> str:
    """Return a short stable digest of configuration sections (16 hex digits)."""
    text = json.dumps([s.model_dump(mode="json") for s in sections], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _read_file(path: Path) -> dict[str, Any]:
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


def _merge(data: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            branch = data.setdefault(key, {})
            if isinstance(branch, dict):
                _merge(branch, value)
        elif value is not None:
            data[key] = value


def _override(data: dict[str, Any], item: str) -> None:
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


def _describe_section(section: BaseModel) -> list[str]:
    lines: list[str] = []
    for name, info in type(section).model_fields.items():
        lines += [f"  # {info.description}", "  " + _yaml_line(name, getattr(section, name))]
    return lines


def _yaml_line(name: str, value: object) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=float("inf"))
    return f"{name}: {text.removesuffix('...' + chr(10)).strip()}"
