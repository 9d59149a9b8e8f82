"""Results of a run as datasets of a Butler: files, tables for ingest, and the ingest itself."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bgmatch_dask.errors import ConfigError, StoreError
from bgmatch_dask.report.export import Product, export_fits
from bgmatch_dask.report.fits_files import whole_file
from bgmatch_dask.store import Location, read_spec
from bgmatch_dask.store.data_ids import read_data_ids

__all__ = ("OUTPUTS", "Dataset", "export_datasets", "put_datasets", "write_ingest_tables")

_OF_VISIT = ("instrument", "visit", "skymap", "tract", "patch")
_OF_BAND = ("skymap", "tract", "patch", "band")
_FORMATTERS = "bgmatch_dask.warps.butler_formatter"


@dataclass(frozen=True, slots=True)
class _Output:
    """One kind of dataset that a run can give."""

    product: Product
    storage_class: str
    dimensions: tuple[str, ...]
    formatter: str
    stack_formatter: str


OUTPUTS: Mapping[str, _Output] = {
    "bgmatch_offset": _Output(
        "background",
        "Background",
        _OF_VISIT,
        f"{_FORMATTERS}.BackgroundFormatter",
        "lsst.obs.base.formatters.fitsGeneric.FitsGenericFormatter",
    ),
    "bgmatch_matched_warp": _Output(
        "matched",
        "ExposureF",
        _OF_VISIT,
        f"{_FORMATTERS}.ExposureFormatter",
        "lsst.obs.base.formatters.fitsExposure.FitsExposureFormatter",
    ),
    "bgmatch_coadd": _Output(
        "coadd",
        "ExposureF",
        _OF_BAND,
        f"{_FORMATTERS}.ExposureFormatter",
        "lsst.obs.base.formatters.fitsExposure.FitsExposureFormatter",
    ),
}
"""Dataset types by name."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One file, and what the Butler calls it."""

    dataset_type: str
    """Key of `OUTPUTS`."""
    data_id: Mapping[str, int | str]
    """Values of the dimensions of the type."""
    path: Path
    """The FITS file."""


def export_datasets(
    location: Location, run: str, out_dir: str | os.PathLike[str], dataset_types: Sequence[str]
) -> list[Dataset]:
    """Write the files of some outputs and say what the Butler calls each.

    Parameters
    ----------
    location, run
        The store and the finished run in it.
    out_dir
        Folder for the files, one below it per dataset type.
    dataset_types
        Keys of `OUTPUTS`.

    Raises
    ------
    ConfigError
        ``dataset-type`` for an output that does not exist.
    StoreError
        ``data-ids-missing`` when the inputs of the store did not come from a Butler.
    """
    data_ids = read_data_ids(location)
    if not data_ids:
        raise StoreError(
            "data-ids-missing",
            "The store does not know the Butler's names of its units",
            where=location.url,
            fix="Make it with `bgmatch run --butler REPO …`.",
        )
    datasets: list[Dataset] = []
    for name in dataset_types:
        if name not in OUTPUTS:
            raise ConfigError(
                "dataset-type",
                f"There is no output {name!r}",
                fix=f"Outputs: {', '.join(OUTPUTS)}.",
            )
        folder = Path(out_dir).absolute() / name
        datasets += _exported(location, run, folder, name, data_ids)
    return datasets


def _exported(
    location: Location,
    run: str,
    folder: Path,
    name: str,
    data_ids: Mapping[str, Mapping[str, int | str]],
) -> Iterator[Dataset]:
    output = OUTPUTS[name]
    visits = read_spec(location).visits if "visit" in output.dimensions else (None,)
    of_patch = {unit.rsplit("/", 1)[1]: data_id for unit, data_id in data_ids.items()}
    for visit in visits:
        try:
            paths = export_fits(location, run, output.product, folder, visit=visit)
        except StoreError as error:
            # The reference has no offset, and a visit without a match no matched warp.
            if error.code not in {"offset-missing", "nothing-to-export"}:
                raise
            continue
        for path in paths:
            found = re.search(r"_patch(\d+)\.fits$", path.name)
            patch = found.group(1) if found else ""
            known = of_patch.get(patch) if visit is None else data_ids.get(f"{visit}/{patch}")
            if known is not None:
                yield Dataset(name, {key: known[key] for key in output.dimensions}, path)


def put_datasets(
    datasets: Sequence[Dataset],
    repo: str,
    collection: str,
    transfer: Literal["copy", "direct", "move"] = "copy",
) -> int:
    """Ingest files into a Butler repository; those that the collection has are passed over.

    Parameters
    ----------
    datasets
        From `export_datasets`.
    repo, collection
        Repository, and the RUN collection, made when missing.
    transfer
        How the repository takes the files over.

    Returns
    -------
    int
        How many were ingested.

    Raises
    ------
    ConfigError
        ``butler-repo`` when it cannot be opened for writing, ``butler-refused`` when it does not
        take the files.
    """
    from lsst.daf.butler import ButlerUserError

    from bgmatch_dask.warps.butler import open_butler

    butler = open_butler(repo, writeable=True, run=collection)
    try:
        files = [item for name in OUTPUTS for item in _new_files(butler, name, datasets)]
        butler.ingest(*files, transfer=transfer)
    except (ButlerUserError, LookupError, ValueError, RuntimeError, OSError) as error:
        raise ConfigError(
            "butler-refused",
            f"The Butler does not take the outputs: {error}",
            where=repo,
            fix="Check the collection and your rights in the repository.",
        ) from error
    return len(files)


def _new_files(butler: Any, name: str, datasets: Iterable[Dataset]) -> Iterator[Any]:  # noqa: ANN401
    from lsst.daf.butler import DatasetRef, DatasetType, FileDataset

    wanted = [item for item in datasets if item.dataset_type == name]
    if not wanted:
        return
    output = OUTPUTS[name]
    kind = DatasetType(name, output.dimensions, output.storage_class, universe=butler.dimensions)
    butler.registry.registerDatasetType(kind)
    for item in wanted:
        if butler.find_dataset(kind, dict(item.data_id), collections=butler.run) is not None:
            continue
        data_id = butler.registry.expandDataId(dict(item.data_id))
        ref = DatasetRef(kind, data_id, run=butler.run)
        yield FileDataset(path=str(item.path), refs=[ref], formatter=output.formatter)


def write_ingest_tables(
    datasets: Sequence[Dataset], repo: str, collection: str, out_dir: str | os.PathLike[str]
) -> list[Path]:
    """Write what users inside LSST's stack need: one table per dataset type, and a script.

    The script ``ingest.sh`` registers the dataset types and calls ``butler ingest-files``, with
    formatters of the stack, so that files read as ``afw`` objects there.

    Returns
    -------
    list of Path
        The tables (ECSV, paths relative to the folder) and the script.
    """
    folder = Path(out_dir).absolute()
    lines = ["#!/bin/sh", "# Run inside LSST's stack.", "set -eu", 'cd "$(dirname "$0")"']
    paths = []
    for name, output in OUTPUTS.items():
        wanted = [item for item in datasets if item.dataset_type == name]
        if not wanted:
            continue
        table = folder / f"{name}.ecsv"
        _write_table(wanted, output.dimensions, folder, table)
        paths.append(table)
        words = ["butler", "register-dataset-type", repo, name, output.storage_class]
        lines.append(shlex.join([*words, *output.dimensions]) + " || true")
        words = ["butler", "ingest-files", repo, name, collection, table.name]
        lines.append(shlex.join([*words, "--formatter", output.stack_formatter, "-t", "copy"]))
    script = folder / "ingest.sh"
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [*paths, script]


def _write_table(
    datasets: Sequence[Dataset], dimensions: Sequence[str], folder: Path, path: Path
) -> None:
    from astropy.table import Table

    rows = [
        (str(item.path.relative_to(folder)), *(item.data_id[key] for key in dimensions))
        for item in datasets
    ]
    with whole_file(path) as partial:
        Table(rows=rows, names=("filename", *dimensions)).write(
            partial, format="ascii.ecsv", overwrite=True
        )
