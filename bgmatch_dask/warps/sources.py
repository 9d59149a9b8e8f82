"""Sources of inputs: what names the files of a job and what is known of them beforehand.

A source is registered by name, here or as an entry point of the group
``bgmatch_dask.sources``: a callable that takes the section ``inputs`` of the configuration and
returns an object with `Source.find`.
"""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from bgmatch_dask.config import InputConfig
from bgmatch_dask.errors import ConfigError, InputError
from bgmatch_dask.warps.places import is_remote, list_remote, read_input
from bgmatch_dask.warps.visit_facts import Facts

__all__ = ("ENTRY_POINTS", "Found", "PathSource", "Source", "expand", "load_source")

ENTRY_POINTS = "bgmatch_dask.sources"
"""Group of entry points that register sources."""

_MAX_LIST_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Found:
    """One input that a source names."""

    path: str
    """Absolute path or URL."""
    visit: str | None = None
    """Visit label; None: read it from the header or the file name."""
    band: str | None = None
    """Band label; None: read it from the header."""
    facts: Facts = ()
    """What the source knows of the visit; it wins over headers."""
    data_id: tuple[tuple[str, int | str], ...] = ()
    """The Butler's names of the dataset; empty for a file that is none."""


class Source(Protocol):
    """Names the inputs of a job."""

    def find(self) -> Iterable[Found]:
        """Yield the inputs, in any order; no pixel is read.

        Raises
        ------
        InputError
            When the place of the inputs cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class PathSource:
    """Files, folders, patterns, lists (``@list.txt``) and URLs."""

    paths: tuple[str, ...]
    """As in ``inputs.paths``."""

    def find(self) -> Iterator[Found]:
        """Yield each file once, with an absolute name."""
        # Workers may run in another folder, so that only absolute paths mean the same to them.
        names = (n if is_remote(n) else str(Path(n).absolute()) for n in expand(self.paths))
        yield from (Found(name) for name in dict.fromkeys(names))


def load_source(config: InputConfig) -> Source:
    """Return the source that the configuration names.

    Raises
    ------
    ConfigError
        ``source-unknown`` when no source has this name, ``source-missing`` when a package that
        it needs is not installed.
    """
    name = config.source
    # To look for entry points takes as long as to read the headers of fifty files.
    make = _OURS.get(name) or _of_entry_point(name)
    try:
        return make(config)
    except ImportError as error:
        raise ConfigError(
            "source-missing",
            f"The source {name!r} needs a package that is not here: {error}",
            fix=f"Install it, e.g. pip install 'bgmatch_dask[{name}]'.",
        ) from error


def _butler(config: InputConfig) -> Source:
    from bgmatch_dask.warps.butler import butler_source

    return butler_source(config)


_OURS: Mapping[str, Callable[[InputConfig], Source]] = {
    "files": lambda config: PathSource(config.paths),
    "butler": _butler,
}


def _of_entry_point(name: str) -> Callable[[InputConfig], Source]:
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in points:
        raise ConfigError(
            "source-unknown",
            f"There is no source {name!r}",
            where="inputs.source",
            fix=f"Use one of {', '.join(sorted(_OURS.keys() | points.keys()))}.",
        )

    def make(config: InputConfig) -> Source:
        source: Source = points[name].load()(config)
        return source

    return make


def expand(paths: Iterable[str]) -> Iterator[str]:
    """Yield the files that paths, folders, patterns, lists and URLs stand for.

    Raises
    ------
    InputError
        ``list-unreadable`` for a list that is not text.
    """
    for item in paths:
        if item.startswith("@"):
            yield from expand(_lines(item[1:]))
        elif is_remote(item):
            yield from _expand_remote(item)
        elif Path(item).is_dir():
            yield from sorted(str(p) for p in Path(item).iterdir() if ".fit" in p.name.lower())
        elif glob.has_magic(item) and not Path(item).exists():
            yield from sorted(glob.glob(item, recursive=True))
        else:
            yield item


def _expand_remote(item: str) -> Iterator[str]:
    parts = urlsplit(item)
    folder, _, last = parts.path.rpartition("/")
    if parts.scheme in {"http", "https"} or (last and not glob.has_magic(last)):
        yield item
        return
    query = f"?{parts.query}" if parts.query else ""
    pattern = unquote(last) or "*.fit*"
    for name in list_remote(f"{parts.scheme}://{parts.netloc}{folder}{query}"):
        inner_folder, _, inner = urlsplit(name).path.rpartition("/")
        if inner_folder == folder and fnmatch.fnmatchcase(unquote(inner), pattern):
            yield name


def _lines(name: str) -> list[str]:
    """Return the entries of a list; relative ones are relative to the list's own folder."""
    try:
        data = read_input(name, _MAX_LIST_BYTES)
        text = (data or b"").decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _bad_list(name, str(error)) from error
    if data is None or "\0" in text:
        raise _bad_list(name, "it is no text of a sensible size")
    entries = [line.strip() for line in text.splitlines()]
    entries = [line for line in entries if line and not line.startswith("#")]
    if any(line.startswith("@") for line in entries):
        raise _bad_list(name, "a list cannot name lists")
    if is_remote(name):
        return entries
    # A path that is absolute already stays as it is.
    return [e if is_remote(e) else str(Path(name).parent / e) for e in entries]


def _bad_list(name: str, why: str) -> InputError:
    return InputError(
        "list-unreadable",
        f"The list of inputs cannot be used: {why}",
        where=name,
        fix="Give a text file with one path, pattern or URL per line.",
    )
