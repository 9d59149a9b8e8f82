"""Versions of Python and packages on client, scheduler and workers; a mismatch is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distributed import Client

from bgmatch_dask.errors import ClusterError

__all__ = ("Mismatch", "address_of", "check_versions", "find_mismatches", "mismatch_table")

_PACKAGES = ("bgmatch_dask", "zarr", "numba", "scipy", "astropy", "xarray", "obstore")
"""Packages that take part in the work, beside those that Dask itself lists."""

_COMPARED = ("python", "bgmatch_dask", "dask", "distributed", "numpy", "zarr", "numba", "scipy",
             "astropy", "xarray", "obstore", "msgpack", "cloudpickle")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One package whose versions differ."""

    package: str
    """Name of the package."""
    client: str
    """Version here."""
    scheduler: str
    """Version on the scheduler."""
    workers: str
    """Versions on the workers, each with one address that has it where it differs."""


def find_mismatches(client: Client) -> tuple[Mismatch, ...]:
    """Return the packages whose versions on client, scheduler and workers are not one."""
    found: Any = client.get_versions(packages=list(_PACKAGES))
    here = _versions(found["client"])
    scheduler = _versions(found["scheduler"])
    workers = {address: _versions(item) for address, item in found["workers"].items()}
    mismatches = []
    for package in _COMPARED:
        seen = {here[package], scheduler[package], *(w[package] for w in workers.values())}
        if len(seen) > 1:
            on_workers = _on_workers(package, here[package], workers)
            mismatches.append(Mismatch(package, here[package], scheduler[package], on_workers))
    return tuple(mismatches)


def check_versions(client: Client) -> None:
    """Refuse a cluster whose versions differ.

    Raises
    ------
    ClusterError
        ``version-mismatch``, with a table.
    """
    mismatches = find_mismatches(client)
    if mismatches:
        raise ClusterError(
            "version-mismatch",
            "Client, scheduler and workers do not have the same versions:\n"
            + mismatch_table(mismatches),
            where=address_of(client),
            fix="Install the same requirements.lock on all of them, or use one image for all.",
        )


def address_of(client: Client) -> str:
    """Return the address of the scheduler that a client speaks to."""
    return str(client.scheduler.address) if client.scheduler is not None else ""


def mismatch_table(mismatches: Sequence[Mismatch]) -> str:
    """Return the mismatches as lines of text, one per package, with a heading."""
    rows = [("package", "client", "scheduler", "workers")]
    rows += [(m.package, m.client, m.scheduler, m.workers) for m in mismatches]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def _versions(item: Mapping[str, Any] | None) -> dict[str, str]:
    packages = item["packages"] if item else {}
    versions = {name: str(packages.get(name) or "none") for name in _COMPARED}
    # Pickled code is the same within a minor version of Python.
    versions["python"] = ".".join(versions["python"].split(".")[:2])
    return versions


def _on_workers(package: str, here: str, workers: Mapping[str, Mapping[str, str]]) -> str:
    first: dict[str, str] = {}
    for address in sorted(workers):
        first.setdefault(workers[address][package], address)
    return ", ".join(v if v == here else f"{v} ({first[v]})" for v in sorted(first)) or "none"
