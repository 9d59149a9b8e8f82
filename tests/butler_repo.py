"""A Butler repository as an observatory has it, filled with simulated warps; no LSST stack."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path

SKYMAP, TRACT, INSTRUMENT, BAND, FILTER = "lsst_cells_v2", 9813, "LSSTCam", "i", "i_39"
COLLECTION = "LSSTCam/runs/DRP/20260101"
STACK_FORMATTER = "lsst.obs.base.formatters.fitsExposure.FitsExposureFormatter"
OWN_FORMATTER = "bgmatch_dask.warps.butler_formatter.ExposureFormatter"
FIRST_PATCH = 40
"""Patch numbers of the sky map are not those of the store."""


def make_repo(root: Path, warps: Path, files: str | None = None) -> Path:
    """Make a repository that holds the warps as ``direct_warp`` and return its folder.

    ``files`` is the place of its files, where that is not the folder itself: ``s3://…``.
    """
    from lsst.daf.butler import Butler, Config, DatasetRef, DatasetType, FileDataset

    if files is None:
        Butler.makeRepo(str(root))
    else:
        database = {"db": "sqlite:///<butlerRoot>/gen3.sqlite3"}
        config = Config({"datastore": {"root": files}, "registry": database})
        Butler.makeRepo(str(root), config=config, forceConfigRoot=False)
    butler = Butler.from_config(str(root), writeable=True, run=COLLECTION)
    paths = sorted(warps.glob("warp_v*_p*.fits"))
    labels = [re.fullmatch(r"warp_v(\d+)_p(\d+)", path.stem).groups() for path in paths]
    _insert_dimensions(butler.registry, labels)
    kind = DatasetType(
        "direct_warp",
        ("instrument", "visit", "skymap", "tract", "patch"),
        "ExposureF",
        universe=butler.dimensions,
    )
    butler.registry.registerDatasetType(kind)
    data = []
    for path, (visit, patch) in zip(paths, labels, strict=True):
        data_id = butler.registry.expandDataId(
            instrument=INSTRUMENT,
            visit=int(visit),
            skymap=SKYMAP,
            tract=TRACT,
            patch=FIRST_PATCH + int(patch),
        )
        ref = DatasetRef(kind, data_id, run=COLLECTION)
        data.append(FileDataset(path=str(path), refs=[ref], formatter=OWN_FORMATTER))
    butler.ingest(*data, transfer="copy")
    butler.close()
    _name_formatters_as_rubin_does(root)
    return root


def _insert_dimensions(registry: object, labels: list[tuple[str, str]]) -> None:
    from astropy.time import Time
    from lsst.daf.butler import Timespan

    insert = registry.insertDimensionData
    insert(
        "instrument",
        {
            "name": INSTRUMENT,
            "class_name": "lsst.obs.lsst.LsstCam",
            "detector_max": 205,
            "visit_max": 10**13,
            "exposure_max": 10**13,
            "visit_system": 0,
        },
    )
    insert("physical_filter", {"instrument": INSTRUMENT, "name": FILTER, "band": BAND})
    insert("day_obs", {"instrument": INSTRUMENT, "id": 20260101})
    insert(
        "skymap",
        {
            "name": SKYMAP,
            "hash": b"\0" * 32,
            "tract_max": 18938,
            "patch_nx_max": 10,
            "patch_ny_max": 10,
        },
    )
    insert("tract", {"skymap": SKYMAP, "id": TRACT})
    for patch in sorted({int(patch) for _, patch in labels}):
        place = {"id": FIRST_PATCH + patch, "cell_x": patch, "cell_y": 4}
        insert("patch", {"skymap": SKYMAP, "tract": TRACT, **place})
    for number, visit in enumerate(sorted({int(visit) for visit, _ in labels})):
        start = 61041.0 + number / 24
        begin, end = (Time(mjd, format="mjd", scale="tai") for mjd in (start, start + 30 / 86400))
        insert(
            "visit",
            {
                "instrument": INSTRUMENT,
                "id": visit,
                "day_obs": 20260101,
                "physical_filter": FILTER,
                "name": f"visit {visit}",
                "seq_num": number,
                "exposure_time": 15.0 + number,
                "target_name": "<b>field</b>",
                "timespan": Timespan(begin, end),
            },
        )


def _name_formatters_as_rubin_does(root: Path) -> None:
    """Record the formatters of a real repository, which cannot be imported without the stack."""
    database = sqlite3.connect(root / "gen3.sqlite3")
    with database:
        changed = database.execute(
            "UPDATE file_datastore_records SET formatter = ?", (STACK_FORMATTER,)
        )
        assert changed.rowcount > 0
    database.close()


def remove_artifact(root: Path) -> Path:
    """Delete the file of one dataset, as a careless clean-up would, and return its path."""
    path = min(root.rglob("direct_warp*.fits"))
    path.unlink()
    return path


def copy_repo(root: Path, target: Path) -> Path:
    """Return a copy of a repository that may be changed."""
    return Path(shutil.copytree(root, target))
