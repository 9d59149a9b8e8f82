"""One place, local or remote: the bytes and the Zarr arrays of a store live under one URL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlparse

import obstore
import zarr
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url
from zarr.storage import ObjectStore

from bgmatch_dask.errors import StoreError

__all__ = ("Location", "normalise_url")


def normalise_url(url: str) -> str:
    """Return an absolute URL; a plain path becomes ``file://…``.

    Raises
    ------
    StoreError
        ``store-url`` when the scheme is not one that obstore knows.
    """
    parsed = urlparse(url)
    if parsed.scheme in {"s3", "gs", "az", "https", "memory"}:
        return url.rstrip("/")
    if parsed.scheme not in {"", "file"}:
        raise StoreError(
            "store-url",
            f"The scheme {parsed.scheme!r} is not known",
            where=url,
            fix="Give a path, file://… or s3://….",
        )
    path = Path(unquote(parsed.path) if parsed.scheme else url)
    return path.expanduser().resolve().as_uri()


@dataclass(frozen=True, slots=True)
class Location:
    """A store's place. Small and picklable; connections are made where they are used."""

    url: str
    """Absolute URL without trailing slash."""

    @classmethod
    def of(cls, url: str) -> Location:
        """Return the location of a path or URL."""
        return cls(normalise_url(url))

    @property
    def local_path(self) -> Path | None:
        """The path of a local store, None for a remote one."""
        parsed = urlparse(self.url)
        return Path(unquote(parsed.path)) if parsed.scheme == "file" else None

    def child(self, name: str) -> str:
        """Return the URL of an object, for people to open."""
        path = self.local_path
        return str(path / name) if path is not None else f"{self.url}/{name}"

    def zarr_store(self) -> ObjectStore[Any]:
        """Return the Zarr view of this place."""
        return ObjectStore(_connect(self.url))

    def open_group(self) -> zarr.Group:
        """Open the root group for reading and region writing.

        Raises
        ------
        StoreError
            ``store-missing`` when there is no tract store here.
        """
        try:
            store = ObjectStore(_existing(self.url))
            return zarr.open_group(store, mode="r+", use_consolidated=False)
        except (FileNotFoundError, BaseError) as error:
            raise StoreError(
                "store-missing",
                "There is no tract store",
                where=self.url,
                fix="Check the path, or make the store with `bgmatch run`.",
            ) from error

    def exists(self, name: str) -> bool:
        """Whether an object is there."""
        return self.tag(name) is not None

    def tag(self, name: str) -> str | None:
        """Return what tells one version of an object from the next, None when it is missing."""
        try:
            with _faults(self.url, name, "store-read"):
                meta = obstore.head(_existing(self.url), name)
        except FileNotFoundError:
            return None
        return f"{meta['e_tag']}/{meta['last_modified']}/{meta['size']}"

    def read_bytes(self, name: str) -> bytes:
        """Return the bytes of an object.

        Raises
        ------
        StoreError
            ``object-missing`` when there is none, ``store-read`` when it cannot be read.
        """
        try:
            with _faults(self.url, name, "store-read"):
                return bytes(obstore.get(_existing(self.url), name).bytes())
        except FileNotFoundError as error:
            raise StoreError("object-missing", f"There is no {name!r}", where=self.url) from error

    def read_json(self, name: str) -> Any:  # noqa: ANN401
        """Return the parsed JSON of an object."""
        return json.loads(self.read_bytes(name))

    def write_bytes(self, name: str, data: bytes, *, create: bool = False) -> None:
        """Write an object in one step (atomic on local disk and on object stores).

        Parameters
        ----------
        name
            Path below the store.
        data
            All of its bytes.
        create
            Refuse to replace an object that exists.

        Raises
        ------
        StoreError
            ``object-exists`` with ``create``; ``store-write`` when the place refuses.
        """
        mode: Literal["create", "overwrite"] = "create" if create else "overwrite"
        try:
            with _faults(self.url, name, "store-write"):
                obstore.put(_connect(self.url), name, data, mode=mode)
        except AlreadyExistsError as error:
            raise StoreError("object-exists", f"{name!r} exists", where=self.url) from error

    def write_json(self, name: str, value: Any, *, create: bool = False) -> None:  # noqa: ANN401
        """Write an object as JSON with sorted keys."""
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=True)
        self.write_bytes(name, text.encode(), create=create)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the paths of all objects below a prefix (whole path segments), sorted."""
        try:
            with _faults(self.url, prefix, "store-read"):
                pages = obstore.list(_existing(self.url), prefix)
                names = [str(item["path"]) for page in pages for item in page]
        except FileNotFoundError:
            return
        yield from sorted(names)

    def delete(self, name: str) -> None:
        """Delete one object; one that is not there is as good as deleted.

        Raises
        ------
        StoreError
            ``store-write`` when the place refuses.
        """
        with suppress(FileNotFoundError), _faults(self.url, name, "store-write"):
            obstore.delete(_existing(self.url), name)


@contextmanager
def _faults(url: str, name: str, code: str) -> Iterator[None]:
    """Turn what a place refuses into `StoreError`; what is missing is the caller's matter."""
    try:
        yield
    except (StoreError, FileNotFoundError, AlreadyExistsError):
        raise
    except (BaseError, OSError) as error:
        raise StoreError(
            code,
            f"{name!r} is refused by the store: {error}",
            where=url,
            fix="Check the address, the rights, the connection and the free space.",
        ) from error


def _existing(url: str) -> Any:  # noqa: ANN401
    """Connect for reading: a mistyped path is not made into an empty folder."""
    path = Location(url).local_path
    if path is not None and not path.is_dir():
        raise FileNotFoundError(path)
    return _connect(url)


@lru_cache(maxsize=32)
def _connect(url: str) -> Any:  # noqa: ANN401
    parsed = urlparse(url)
    try:
        if parsed.scheme == "file":
            return LocalStore(prefix=Path(unquote(parsed.path)), mkdir=True)
        return from_url(url)
    except (BaseError, OSError, ValueError) as error:
        raise StoreError(
            "store-unreachable",
            f"The store cannot be opened: {error}",
            where=url,
            fix="Check the address, the rights and the credentials.",
        ) from error
