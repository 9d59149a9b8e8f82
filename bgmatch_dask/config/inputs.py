"""What is read, and where the tract lies."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from bgmatch_dask.config.section import Positive, Section

__all__ = (
    "ButlerConfig",
    "InputConfig",
    "TractConfig",
)


class ButlerConfig(Section):
    """Which datasets of a Butler repository are read."""

    repo: str | None = None
    """Repository: path or URL of its folder or its butler.yaml, or a label."""
    collections: tuple[str, ...] = ()
    """Collections that are searched, in this order."""
    where: str = ""
    """Query, e.g. `tract = 9813 AND band = 'i' AND skymap = 'lsst_cells_v2'`."""
    dataset_type: str = "direct_warp"
    """Dataset type of the warps."""

    @field_validator("collections", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(v.strip() for v in value.split(",")) if isinstance(value, str) else value


class InputConfig(Section):
    """What is read."""

    paths: tuple[str, ...] = ()
    """Files, folders, glob patterns, lists (`@list.txt`) and URLs of the inputs."""
    source: str = Field(default="files", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """Who names the inputs: `files`, `butler`, or a source that another package registers."""
    butler: ButlerConfig = ButlerConfig()
    """Which warps of a Butler repository, where `source` is `butler`."""
    profile: str = "lsst"
    """Reader profile: `lsst`, `2mass`, `sdss`, `generic`, or the path of a profile file (YAML)."""
    photometric_ratio: str | None = Field(default=None, pattern=r"^[A-Z0-9_-]{1,68}$")
    """HDU of LSST warps with the ratio of background to photometric calibration; or none."""
    join: bool = False
    """Let the inputs join what the store holds, on its tract; otherwise they are all there is."""
    on_bad_input: Literal["skip", "fail"] = "skip"
    """`skip`: leave a bad input out, report it, exit with 3. `fail`: stop at the first one."""
    max_megapixels: float = Field(default=100.0, gt=0)
    """Refuse an image of more pixels [Mpix], and a file of more than 16 times as many bytes."""

    @field_validator("paths", mode="before")
    @classmethod
    def _one_path(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class TractConfig(Section):
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
