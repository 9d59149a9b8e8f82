"""Warps of a Butler repository, without LSST's C++ stack.

Datasets are looked up here, on the driver, and become plain addresses; workers open files and
never connect to the repository. Only ``lsst-daf-butler`` is needed (``bgmatch_dask[butler]``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from bgmatch_dask.config import ButlerConfig, InputConfig
from bgmatch_dask.errors import ConfigError, InputError
from bgmatch_dask.warps.sources import Found
from bgmatch_dask.warps.visit_facts import Facts

__all__ = ("ButlerSource", "butler_source", "open_butler")

_SAME = ("skymap", "tract", "band", "instrument")
"""Dimensions that all warps of one job share."""


@dataclass(frozen=True, slots=True)
class ButlerSource:
    """The datasets that a query finds."""

    config: ButlerConfig
    """Repository, collections, query and dataset type."""

    def find(self) -> Iterator[Found]:
        """Yield the address of every dataset, in the order of visit and patch.

        Raises
        ------
        ConfigError
            ``butler-repo`` or ``butler-query`` when repository or query are wrong.
        InputError
            ``inputs-empty`` with the Butler's reasons, ``butler-uri`` for a dataset that is no
            single FITS file.
        """
        butler = open_butler(self.config.repo)
        try:
            refs = self._query(butler)
            self._check_same(refs)
            for ref in refs:
                # One at a time as they are wanted: signed addresses expire.
                yield _found(ref, _address(butler, ref))
        finally:
            # Older versions have nothing to close.
            with suppress(AttributeError):
                butler.close()

    def _query(self, butler: Any) -> list[Any]:  # noqa: ANN401
        from lsst.daf.butler import ButlerUserError, EmptyQueryResultError

        try:
            refs = butler.query_datasets(
                self.config.dataset_type,
                collections=list(self.config.collections) or None,
                where=self.config.where,
                with_dimension_records=True,
                limit=None,
                explain=True,
            )
        except EmptyQueryResultError as error:
            reasons = "; ".join(str(reason) for reason in error.reasons)
            raise InputError(
                "inputs-empty",
                f"The query finds no {self.config.dataset_type}. {reasons}".strip(),
                where=str(self.config.repo),
                fix="Check collections and where.",
            ) from error
        except (ButlerUserError, ValueError, LookupError, RuntimeError, TypeError) as error:
            raise ConfigError(
                "butler-query",
                f"The Butler refuses the query: {error}",
                where=self.config.where or str(self.config.repo),
                fix="Check inputs.butler: collections, where and dataset_type.",
            ) from error
        return sorted(refs, key=lambda r: (r.dataId["visit"], r.dataId["patch"]))

    def _check_same(self, refs: list[Any]) -> None:
        for name in _SAME:
            values = sorted({str(ref.dataId[name]) for ref in refs})
            if len(values) > 1:
                raise ConfigError(
                    "butler-query",
                    f"The query finds warps of more than one {name}: {', '.join(values[:5])}",
                    where=self.config.where,
                    fix=f"Add `{name} = …` to the query.",
                )


def butler_source(config: InputConfig) -> ButlerSource:
    """Return the source of the section ``inputs``.

    Raises
    ------
    ConfigError
        ``butler-repo`` when no repository is named.
    """
    if config.butler.repo is None:
        raise ConfigError(
            "butler-repo",
            "No Butler repository is named",
            where="inputs.butler.repo",
            fix="Give --butler REPO.",
        )
    import lsst.daf.butler  # noqa: F401  # What is missing is told before the work begins.

    return ButlerSource(config.butler)


def open_butler(repo: str | None, **options: Any) -> Any:  # noqa: ANN401
    """Return a Butler of a repository.

    Raises
    ------
    ConfigError
        ``butler-repo`` when there is none.
    """
    from lsst.daf.butler import Butler, ButlerUserError

    try:
        return Butler.from_config(repo, **options)
    except (OSError, ButlerUserError, LookupError, RuntimeError, ValueError) as error:
        raise ConfigError(
            "butler-repo",
            f"The Butler repository cannot be opened: {error}",
            where=str(repo),
            fix="Give the folder with its butler.yaml, its URL, or its label.",
        ) from error


def _address(butler: Any, ref: Any) -> str:  # noqa: ANN401
    try:
        uris = butler.getURIs(ref)
    except FileNotFoundError:
        # A dataset without a file is rejected like any other file that is not there.
        return f"butler:{ref.id}"
    if uris.primaryURI is None or uris.primaryURI.fragment:
        raise InputError(
            "butler-uri",
            f"The dataset {ref} is stored in parts or inside an archive",
            fix="Only datasets that are one FITS file can be read.",
        )
    address = str(uris.primaryURI)
    parts = urlsplit(address)
    return unquote(parts.path) if parts.scheme == "file" else address


def _found(ref: Any, address: str) -> Found:  # noqa: ANN401
    data_id = ref.dataId
    return Found(
        path=address,
        visit=str(data_id["visit"]),
        band=str(data_id["band"]),
        facts=_facts(data_id),
        data_id=tuple(
            (name, data_id[name] if isinstance(data_id[name], int) else str(data_id[name]))
            for name in ("instrument", "skymap", "tract", "patch", "visit", "band")
        ),
    )


def _facts(data_id: Any) -> Facts:  # noqa: ANN401
    record = data_id.records["visit"]
    facts: list[tuple[str, float | str]] = [("physical_filter", str(data_id["physical_filter"]))]
    if record is None:
        return tuple(facts)
    if record.exposure_time is not None:
        facts.append(("exposure_time", float(record.exposure_time)))
    span = record.timespan
    if span is not None and span.begin is not None and span.end is not None:
        facts.append(("mjd", 0.5 * (float(span.begin.tai.mjd) + float(span.end.tai.mjd))))
    return tuple(facts)
