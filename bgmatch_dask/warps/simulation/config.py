"""What is simulated: size of the tract, number of visits, and how hard the sky is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bgmatch_dask.errors import ConfigError
from bgmatch_dask.geometry import PatchGrid, TractGeometry

__all__ = ("SimulationConfig",)

_FIRST_VISIT, _VISIT_STEP = 1200, 14


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """Everything that the pixels of a simulated tract depend on.

    Raises
    ------
    ConfigError
        ``simulation-config`` when a number makes no sense.
    """

    visits: int = 8
    """Number of visits."""
    patches: tuple[int, int] = (3, 3)
    """Patches along x and y."""
    patch_size: int = 600
    """Inner size of a patch [px]; 1000 makes the tract of the benchmarks."""
    border: int = 50
    """Border of a patch [px]."""
    seed: int = 42
    """Seed of everything random."""
    pixel_scale: float = 0.2
    """Pixel size [arcsec]."""
    tract: int = 9813
    """Label of the tract."""
    band: str = "r"
    """Label of the band."""
    pointings: Literal["strip", "broad"] = "strip"
    """`strip`: the best reference misses a strip, which holds a whole visit; `broad`: it covers
    96 % of the tract, the first visit 62 %, and the first and the seventh visit do not meet."""
    centre: tuple[float, float] = (150.1, 2.2)
    """Right ascension and declination of the tract's centre [deg, ICRS]."""
    star_density: float = 520.0
    """Stars per million pixels."""
    galaxy_density: float = 260.0
    """Galaxies per million pixels."""
    cosmic_ray_density: float = 40.0
    """Cosmic rays per million pixels of a visit."""
    hot_pixel_density: float = 60.0
    """Masked hot pixels per million pixels of a visit."""
    psf_fwhm: tuple[float, float] = (3.1, 4.2)
    """Range of the visits' seeing [px]."""
    sky_level: tuple[float, float] = (240.0, 1180.0)
    """Range of the visits' mean sky [nJy]."""
    sky_gradient: float = 50.0
    """Largest sky difference between the centre and an edge of the tract [nJy]."""
    sky_curvature: float = 18.0
    """Largest quadratic term of the sky at an edge of the tract [nJy]."""
    bump: float = 60.0
    """Peak of the scattered light in the visits that have it [nJy]."""
    bump_sigma: float = 0.12
    """Width (σ) of the scattered light in units of the tract's size."""
    cirrus_rms: float = 12.0
    """Standard deviation of the cirrus [nJy]."""
    galaxy_peak: float = 250.0
    """Central surface brightness of the large galaxy's disc [nJy]."""
    gain: float = 1.0
    """Electrons per nJy."""
    read_noise: float = 5.0
    """Read noise [nJy]."""
    saturation: float = 40_000.0
    """Pixel value where the detectors saturate [nJy]."""
    ratio_amplitude: float = 0.0
    """Amplitude of the pattern in the ratio of background to photometric calibration; 0: none."""
    compressed: bool = False
    """Whether the files are compressed row by row, as those of the Butler are."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no tract and amounts that make no light."""
        counts = (self.visits, *self.patches, self.patch_size, self.gain, self.pixel_scale)
        amounts = (self.border, self.seed, self.star_density, self.galaxy_density)
        ranges = (self.psf_fwhm, self.sky_level)
        if min(counts) <= 0 or min(amounts) < 0 or any(not 0 < a <= b for a, b in ranges):
            raise ConfigError(
                "simulation-config",
                f"The simulation cannot be made with {self}",
                fix="Give positive sizes, densities >= 0 and ascending ranges.",
            )

    @property
    def visit_ids(self) -> tuple[int, ...]:
        """Labels of the visits, in order."""
        return tuple(_FIRST_VISIT + _VISIT_STEP * index for index in range(self.visits))

    @property
    def size(self) -> int:
        """Longer side of the tract [px]."""
        return max(self.patches) * self.patch_size

    @property
    def geometry(self) -> TractGeometry:
        """The tract: its first pixel is (0, 0), its projection is TAN about its centre."""
        nx, ny = self.patches
        grid = PatchGrid(0, 0, self.patch_size, self.patch_size, self.border, nx, ny)
        # A FITS card holds 14 digits of such a number; the files shall say what we say.
        step = round(self.pixel_scale / 3600.0, 18)
        cards: tuple[tuple[str, str | float | int], ...] = (
            ("CTYPE1", "RA---TAN"),
            ("CTYPE2", "DEC--TAN"),
            ("CUNIT1", "deg"),
            ("CUNIT2", "deg"),
            ("CRVAL1", self.centre[0]),
            ("CRVAL2", self.centre[1]),
            ("CRPIX1", 0.5 * grid.tract_box.width + 0.5),
            ("CRPIX2", 0.5 * grid.tract_box.height + 0.5),
            ("CD1_1", -step),
            ("CD1_2", 0.0),
            ("CD2_1", 0.0),
            ("CD2_2", step),
            ("RADESYS", "ICRS"),
        )
        return TractGeometry(str(self.tract), self.band, cards, grid)
