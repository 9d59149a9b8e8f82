"""Reader profiles: a few declarative lines that say how a survey labels its files.

A profile is a YAML file. The shipped ones lie in ``profiles/``; a path names one's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from bgmatch_dask.errors import ConfigError, InputError
from bgmatch_dask.maskplanes import MASK_PLANES

__all__ = ("Label", "Profile", "load_profile", "profile_names")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _pattern(value: str) -> re.Pattern[str]:
    """Compile an expression; what is wrong with it becomes an error of the profile."""
    try:
        return re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None


class Label(_Part):
    """Where a label comes from: the first header card that is there, else the file name."""

    header: tuple[str, ...] = ()
    """Header keywords, tried in order."""
    file_name: str | None = None
    """Regular expression on the file name; its first group is the label."""

    @field_validator("file_name")
    @classmethod
    def _has_group(cls, value: str | None) -> str | None:
        if value is not None and _pattern(value).groups < 1:
            raise ValueError("the expression needs one group, the label")
        return value

    def find(self, header: Mapping[str, Any], name: str) -> str | None:
        """Return the label of a file, None when it has none."""
        for key in self.header:
            value = header.get(key)
            # A card without a value gives an object of astropy that is no label.
            text = str(value).strip() if isinstance(value, str | int | float) else ""
            if text:
                return text
        found = re.search(self.file_name, name) if self.file_name else None
        return found.group(1) if found else None


class HeaderNumber(_Part):
    """A number: from a header card, or fixed."""

    header: str | None = None
    """Header keyword."""
    value: float | None = None
    """Used when there is no card."""

    def find(self, header: Mapping[str, Any]) -> float | None:
        """Return the number of a file, None when it has none.

        Raises
        ------
        InputError
            ``header-number`` when the card holds something else.
        """
        value = header.get(self.header) if self.header else None
        if value is None:
            return self.value
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                "header-number",
                f"The card {self.header} holds no number",
                fix="Correct the header, or use a profile that does not read this card.",
            ) from error


class ZeroPoint(_Part):
    """Photometric zero point: fluxes are scaled to the common one."""

    header: str
    """Header keyword: a magnitude, or counts with `counts_at`."""
    counts_at: float | None = None
    """The card holds the counts of an object of this magnitude."""
    reference: float
    """Zero point of the tract's image unit [mag]."""

    def scale(self, header: Mapping[str, Any]) -> float:
        """Return the factor that brings an image to the common zero point.

        Raises
        ------
        InputError
            ``zero-point-missing`` when the card is absent or not a finite number.
        """
        try:
            value = float(header[self.header])
        except (KeyError, TypeError, ValueError):
            value = float("nan")
        if self.counts_at is not None:
            # No counts, or fewer, have no magnitude.
            counts = value if value > 0 else float("nan")
            value = self.counts_at + 2.5 * float(np.log10(counts))
        if not np.isfinite(value):
            raise InputError(
                "zero-point-missing",
                f"There is no usable zero point in the card {self.header}",
                fix="Correct the header, or use a profile without a zero point.",
            )
        return float(10.0 ** (0.4 * (self.reference - value)))


class Companion(_Part):
    """A second file beside the image, found by changing the file name."""

    find: str
    """Regular expression on the file name."""
    name: str
    """Replacement that makes the companion's name."""

    @model_validator(mode="after")
    def _is_replacement(self) -> Self:
        pattern = _pattern(self.find)
        try:
            # The replacement is parsed before anything is searched.
            pattern.sub(self.name, "")
        except (re.error, IndexError) as error:
            raise ValueError(f"not a replacement for {pattern.pattern!r}: {error}") from None
        return self

    def path_of(self, path: str) -> Path | None:
        """Return where the companion of an image would lie, beside it; None if it has none."""
        here = Path(path)
        name = Path(re.sub(self.find, self.name, here.name)).name
        return None if name in {"", "..", here.name} else here.with_name(name)


class MaskSource(_Part):
    """Where the bit mask of an image is."""

    companion: Companion | None = None
    """A file of the same shape beside the image."""
    hdu: str | int | None = None
    """An extension of the same file."""
    planes: Mapping[str, int] = Field(default_factory=dict)
    """The store's plane name to the file's bit number; other bits are not used."""

    @field_validator("planes")
    @classmethod
    def _are_planes(cls, value: Mapping[str, int]) -> Mapping[str, int]:
        for name, bit in value.items():
            if name not in MASK_PLANES or not 0 <= bit < 63:
                raise ValueError(
                    f"{name}: {bit} is not a plane of {', '.join(MASK_PLANES)} with a bit below 63"
                )
        return value


class Profile(_Part):
    """How to read the files of one survey."""

    name: str
    """Name of the profile."""
    description: str = ""
    """One line for people."""
    layout: Literal["lsst", "image"]
    """`lsst`: warps on the tract's own grid. `image`: any WCS, resampled onto the tract."""
    files: str | None = None
    """Only files whose name matches this expression are inputs; others are passed over."""
    unit: str
    """Unit of the stored images."""
    visit: Label
    """Label of the visit; several files of one visit are put together into one warp."""
    band: Label = Label()
    """Label of the band."""
    hdu: str | int | None = None
    """Extension with the image; default: the first with two dimensions."""
    subtract: HeaderNumber = HeaderNumber()
    """A level taken off the pixels before scaling, e.g. a soft bias."""
    zero_point: ZeroPoint | None = None
    """Common flux scale; None: pixels are taken as they are."""
    flux_per_pixel: bool = True
    """Pixels hold flux, not surface brightness: scale by the ratio of pixel areas."""
    saturation: HeaderNumber = HeaderNumber()
    """Pixels at or above this value of the file get the plane SAT."""
    mask: MaskSource | None = None
    """Bit mask of the image."""
    checksum: bool = True
    """Check pixels against the file's own checksum cards, where there are any."""

    @field_validator("files")
    @classmethod
    def _is_pattern(cls, value: str | None) -> str | None:
        return value if value is None else _pattern(value).pattern

    def accepts(self, file_name: str) -> bool:
        """Whether a file of this name is an input."""
        return self.files is None or re.search(self.files, file_name) is not None


def profile_names() -> tuple[str, ...]:
    """Return the names of the shipped profiles."""
    folder = resources.files(__package__) / "profiles"
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir()))


def load_profile(name: str) -> Profile:
    """Load a shipped profile by its name, or a profile file by its path.

    Raises
    ------
    ConfigError
        ``profile-unknown`` or ``profile-invalid``.
    """
    text = _profile_text(name)
    try:
        return Profile.model_validate({"name": Path(name).stem, **yaml.safe_load(text)})
    except (ValidationError, yaml.YAMLError, TypeError) as error:
        raise ConfigError("profile-invalid", str(error), where=name) from error


def _profile_text(name: str) -> str:
    if name in profile_names():
        return (resources.files(__package__) / "profiles" / f"{name}.yaml").read_text("utf-8")
    try:
        if Path(name).is_file():
            return Path(name).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("profile-invalid", "The profile is not text", where=name) from error
    except (OSError, ValueError):
        pass
    raise ConfigError(
        "profile-unknown",
        f"There is no reader profile {name!r} that can be read",
        fix=f"Use one of {', '.join(profile_names())}, or the path of a YAML file.",
    )
