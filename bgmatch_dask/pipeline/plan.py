"""The plan: what exists, what will be done, and what it costs. No pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bgmatch_dask.config import RunConfig
from bgmatch_dask.errors import ConfigError, PlanError, Rejected
from bgmatch_dask.geometry import TractGeometry
from bgmatch_dask.maskplanes import DETECTIONS, bits_of
from bgmatch_dask.pipeline.basis import settings_of, unit_basis
from bgmatch_dask.pipeline.engine import Engine
from bgmatch_dask.pipeline.headers import SpreadHeaders
from bgmatch_dask.pipeline.reference_choice import check_reference
from bgmatch_dask.pipeline.tasks import Clipping, IngestTask
from bgmatch_dask.store import Ledger, Location, TractSpec, read_spec
from bgmatch_dask.store.receipt import digest_of
from bgmatch_dask.warps.catalogue import Catalogue, Describe, describe_inputs, scan_inputs
from bgmatch_dask.warps.places import lasting_name
from bgmatch_dask.warps.profile import Profile, load_profile
from bgmatch_dask.warps.sources import load_source
from bgmatch_dask.warps.tract import Layout, lay_out
from bgmatch_dask.warps.visit_facts import Facts, combine_facts

__all__ = ("TractPlan", "make_plan")

_BYTES_PER_PIXEL = 12
"""Image, variance and mask of one warp."""
_SUMS = 40
"""Sums of the built reference, what one visit adds to them, and its offset, per pixel."""
_COPIES = 4
"""Decoding, resampling and compression hold several copies of a plane for a moment."""


@dataclass(frozen=True, slots=True)
class TractPlan:
    """Everything that is known before the work starts."""

    config: RunConfig
    """The configuration."""
    location: Location
    """The store."""
    spec: TractSpec
    """What is fixed when the store is made."""
    ingest: tuple[IngestTask, ...]
    """Units to ingest, by patch and visit."""
    rejected: tuple[Rejected, ...]
    """Inputs that the headers already rule out."""
    passed_over: int
    """Files that are not inputs by their name."""
    settings: Mapping[str, Any]
    """What the units of ingest depend on besides their files."""

    @property
    def input_bytes(self) -> int:
        """Size of all input files."""
        sizes = {file.path: file.size for task in self.ingest for file in task.files}
        return sum(sizes.values())

    @property
    def visits(self) -> dict[str, dict[str, float | str]]:
        """What is known of each visit, for the store's table of visits."""
        facts: dict[str, dict[str, Facts]] = {visit: {} for visit in self.spec.visits}
        for task in self.ingest:
            facts[task.visit] |= {file.path: file.facts for file in task.files}
        return {
            visit: combine_facts(found[path] for path in sorted(found))
            for visit, found in facts.items()
        }

    @property
    def store_bytes(self) -> int:
        """Size of the warps in the store before compression."""
        height, width = self.spec.geometry.patches.plane_shape
        return len(self.ingest) * height * width * _BYTES_PER_PIXEL

    @property
    def worker_bytes(self) -> int:
        """Memory that one worker needs at most [bytes]."""
        height, width = self.spec.geometry.patches.plane_shape
        per_warp = height * width * _BYTES_PER_PIXEL
        if self.config.match.method == "per_warp":
            # Two warps, their difference, and the model of it in several forms.
            return 2 * _COPIES * per_warp
        if self.config.match.difference == "common_mask":
            # Of every visit the means of its cells and a bit per pixel; of one, its pixels.
            means = len(self.spec.visits) * height * width * 5 // 4
            built = self._held_bytes + 2 * per_warp if built_rounds(self.config) else 0
            return max(_COPIES * per_warp + means, built)
        return max(_COPIES * per_warp, self._held_bytes + 2 * per_warp)

    @property
    def _held_bytes(self) -> int:
        """Images of the hubs on one patch, and the sums of a reference that is built of them."""
        height, width = self.spec.geometry.patches.plane_shape
        held = min(len(self.spec.visits), self.config.match.hubs or 12)
        return height * width * (4 * held + (_SUMS if built_rounds(self.config) else 0))

    def to_json(self) -> dict[str, Any]:
        """Return the facts that `bgmatch plan --json` prints and the store keeps."""
        geometry = self.spec.geometry
        patches = geometry.patches
        return {
            "run": self.config.run,
            "store": self.location.url,
            "tract": geometry.tract,
            "band": geometry.band,
            "unit": self.spec.unit,
            "visits": list(self.spec.visits),
            "patches": {
                "nx": patches.nx,
                "ny": patches.ny,
                "inner": [patches.inner_width, patches.inner_height],
                "border": patches.border,
            },
            "superpixels": list(self.spec.grid.shape),
            "units": len(self.ingest),
            "input_bytes": self.input_bytes,
            "store_bytes": self.store_bytes,
            "worker_bytes": self.worker_bytes,
            "passed_over": self.passed_over,
            "rejected": [
                {"code": r.code, "detail": r.detail, "source": r.source} for r in self.rejected
            ],
        }


def make_plan(config: RunConfig, engine: Engine | None = None) -> TractPlan:
    """Find the inputs, lay out the tract and list the units.

    Parameters
    ----------
    config
        The configuration.
    engine
        Where headers are read; default: in this process.

    Raises
    ------
    BgmatchError
        When the inputs or the configuration do not make a job; ``bad-input`` when an input is
        bad and ``inputs.on_bad_input`` is ``fail``.
    """
    profile = load_profile(config.inputs.profile)
    if config.inputs.photometric_ratio is not None and profile.layout != "lsst":
        raise ConfigError(
            "ratio-layout",
            f"The profile {config.inputs.profile} reads images, which have no plane of a ratio",
            where="inputs.photometric_ratio",
            fix="Leave it empty, or give warps in the LSST layout.",
        )
    _refuse_contradictions(config)
    location = Location.of(config.store.url, config.store.options)
    there = read_spec(location) if config.inputs.join else None
    describe = describe_inputs if engine is None else SpreadHeaders(engine)
    catalogue = _scan(config, profile, config.inputs.paths, describe)
    layout = lay_out(catalogue.files, config.tract, there.geometry if there else None)
    if there is not None and profile.layout == "image":
        # A unit of images is made of all its files, also of those that came on an earlier night.
        before = _earlier_files(config, location, layout)
        catalogue = _scan(config, profile, (*config.inputs.paths, *before), describe)
        layout = lay_out(catalogue.files, config.tract, there.geometry)
        _refuse_lost_files(before, layout)
    check_reference(config.reference, (*layout.visits, *(there.visits if there else ())))
    rejected = (*catalogue.rejected, *layout.rejected)
    refuse_bad_input(config, rejected)
    spec = TractSpec(
        geometry=layout.geometry,
        visits=layout.visits,
        unit=profile.unit,
        bin_size=config.background.bin_size,
        chunk=config.store.chunk,
    )
    tasks = _ingest_tasks(config, profile, layout, location)
    settings = ingest_settings(config, profile, layout.geometry)
    return TractPlan(config, location, spec, tasks, rejected, catalogue.passed_over, settings)


def built_rounds(config: RunConfig) -> int:
    """Return how often the reference is built from the matched visits."""
    return max(config.match.iterations, int(config.reference.built))


def _refuse_contradictions(config: RunConfig) -> None:
    if config.match.method == "per_warp" and built_rounds(config):
        raise ConfigError(
            "built-per-warp",
            "The reference cannot be built from warps that are matched one by one",
            where="match.iterations, reference.built",
            fix="Leave them out, or set match.method to joint.",
        )
    measured = config.match.method != "per_warp" and config.match.outlier_sigma is not None
    if config.coadd.outliers and not measured:
        raise ConfigError(
            "outliers-unmeasured",
            "There are no outlier masks to leave out of the coadd",
            where="coadd.outliers",
            fix="Set match.outlier_sigma, and match.method to joint or reference.",
        )


def _scan(
    config: RunConfig, profile: Profile, paths: Sequence[str], describe: Describe
) -> Catalogue:
    max_pixels = int(config.inputs.max_megapixels * 1e6)
    source = load_source(config.inputs.model_copy(update={"paths": tuple(paths)}))
    catalogue = scan_inputs(source, profile, max_pixels=max_pixels, describe=describe)
    if not catalogue.files:
        first = catalogue.rejected[0]
        raise PlanError(
            "inputs-unusable",
            f"None of the {len(catalogue.rejected)} inputs can be used; "
            f"the first: [{first.code}] {first.detail}",
            where=first.source,
        )
    return catalogue


def _earlier_files(config: RunConfig, location: Location, layout: Layout) -> list[str]:
    """Return the other files of the units that new files touch, as their receipts name them."""
    known = Ledger(location, config.run).read("ingest")
    names: set[str] = set()
    for visit, patch, files in layout.units:
        receipt = known.get(f"{visit}/{patch}")
        if receipt is not None:
            names |= {item.name for item in receipt.inputs} - {file.path for file in files}
    return sorted(names)


def _refuse_lost_files(before: Sequence[str], layout: Layout) -> None:
    lost = set(before) - {file.path for _, _, files in layout.units for file in files}
    if lost:
        raise PlanError(
            "join-inputs-lost",
            f"{len(lost)} file(s) of units that the new ones touch are no longer there",
            where=min(lost),
            fix="Bring them back: a unit is made of all its files.",
        )


def refuse_bad_input(config: RunConfig, rejected: tuple[Rejected, ...]) -> None:
    """Stop at bad input when the configuration says so.

    Raises
    ------
    PlanError
        ``bad-input``.
    """
    if rejected and config.inputs.on_bad_input == "fail":
        first = rejected[0]
        raise PlanError(
            "bad-input",
            f"[{first.code}] {first.detail}",
            where=first.source,
            fix="Mend the input, or set inputs.on_bad_input to skip.",
        )


def clipping(config: RunConfig) -> Clipping:
    """Return how differences are measured: always masked planes, and detections if asked."""
    return _clipping(config, masked_planes(config))


def ingest_clipping(config: RunConfig) -> Clipping:
    """Return how each visit is measured for the choice of the reference."""
    return _clipping(config, _planes(config, with_detected=config.reference.mask_detected))


def masked_planes(config: RunConfig) -> tuple[str, ...]:
    """Return the mask planes whose pixels measure no difference."""
    return _planes(config, with_detected=config.match.mask_detected)


def _planes(config: RunConfig, *, with_detected: bool) -> tuple[str, ...]:
    return (*config.background.mask, *(DETECTIONS if with_detected else ()))


def _clipping(config: RunConfig, planes: tuple[str, ...]) -> Clipping:
    return Clipping(bits_of(planes), config.background.n_sigma, config.background.n_iter)


def _ingest_tasks(
    config: RunConfig, profile: Profile, layout: Layout, location: Location
) -> tuple[IngestTask, ...]:
    settings = ingest_settings(config, profile, layout.geometry)
    tasks = (
        IngestTask(
            url=location.url,
            visit=visit,
            patch=patch,
            files=files,
            profile=profile,
            max_pixels=int(config.inputs.max_megapixels * 1e6),
            clipping=ingest_clipping(config),
            digest="",
            ratio=config.inputs.photometric_ratio,
            noise_step=config.store.noise_step,
        )
        for visit, patch, files in layout.units
    )
    return tuple(replace(task, digest=_basis(task, settings)) for task in tasks)


def _basis(task: IngestTask, settings: Mapping[str, Any]) -> str:
    files = [(lasting_name(f.path), f.size, f.modified_ns, f.etag) for f in task.files]
    return unit_basis(settings, inputs=files)


def ingest_settings(config: RunConfig, profile: Profile, geometry: TractGeometry) -> dict[str, Any]:
    """Return what decides about the stored pixels and sums of a unit, besides its files."""
    return settings_of(
        config,
        "background.bin_size",
        "background.n_sigma",
        "background.n_iter",
        "background.mask",
        "reference.mask_detected",
        "inputs.profile",
        "inputs.max_megapixels",
        "inputs.photometric_ratio",
        "store.noise_step",
        **{"the profile": repr(profile), "the tract": asdict(geometry)},
    )


def stage_digest(upstream: Mapping[str, str] | str, *parts: object) -> str:
    """Return the digest of a product: what it builds on, and its own settings."""
    return digest_of([upstream, [str(part) for part in parts]])
