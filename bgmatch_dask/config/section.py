"""What every section of the configuration is built from."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bgmatch_dask.errors import ConfigError
from bgmatch_dask.maskplanes import bits_of

__all__ = ("PlaneNames", "Positive", "Section")


Positive = Annotated[int, Field(ge=1)]


def _known_planes(names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        bits_of(names)
    except ConfigError as error:
        raise ValueError(f"{error.what}. {error.fix}") from None
    return names


PlaneNames = Annotated[tuple[str, ...], AfterValidator(_known_planes)]


class Section(BaseModel):
    """A section: unknown fields are refused, the text under a field is its meaning."""

    # Labels such as 9813 are numbers in YAML and text here.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )
