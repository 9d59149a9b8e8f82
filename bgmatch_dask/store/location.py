"""One place, local or remote: the bytes and the Zarr arrays of a store live under one URL."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlparse

import obstore
import zarr
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import LocalStore

from bgmatch_dask.errors import ConfigError, StoreError
from bgmatch_dask.remote import REMOTE_SCHEMES, connect_remote, split_options, with_options
from bgmatch_dask.store.file_parts import read_last, read_parts
from bgmatch_dask.store.traffic import RecordedStore, note_read, note_write

__all__ = ("Location", "bucket_missing", "faults", "normalise_url")

_SMALL = 5 << 20
"""Bytes that are sent to a server in one request."""


def normalise_url(url: str, options: Mapping[str, str] | None = None) -> str:
    """Return an absolute URL; a plain path becomes ``file://…``.

    Parameters
    ----------
    url
        Path or URL; a remote one may have options as its query.
    options
        More options of a remote store, such as ``{"endpoint": "http://127.0.0.1:9000"}``.

    Raises
    ------
    StoreError
        ``store-url`` when the scheme is not one that obstore knows.
    ConfigError
        ``store-options`` for an option that the store does not have, or for a secret.
    """
    parsed = urlparse(url)
    if parsed.scheme in REMOTE_SCHEMES:
        return with_options(url, options or {})
    if options:
        raise ConfigError(
            "store-options",
            "Options are for remote stores, and this is a folder",
            where=url,
            fix="Leave store.options out, or give s3://….",
        )
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
    """Absolute URL without trailing slash; its query holds the options of a remote store."""

    @classmethod
    def of(cls, url: str, options: Mapping[str, str] | None = None) -> Location:
        """Return the location of a path or URL, with options as `normalise_url` takes them."""
        return cls(normalise_url(url, options))

    @property
    def local_path(self) -> Path | None:
        """The path of a local store, None for a remote one."""
        return _local_path(self.url)

    def child(self, name: str) -> str:
        """Return the URL of an object, for people to open."""
        path = self.local_path
        return str(path / name) if path is not None else f"{split_options(self.url)[0]}/{name}"

    def zarr_store(self) -> RecordedStore:
        """Return the Zarr view of this place."""
        return RecordedStore(_connect(self.url))

    def open_group(self) -> zarr.Group:
        """Open the root group for reading and region writing.

        Raises
        ------
        StoreError
            ``store-missing`` when there is no tract store here.
        """
        try:
            store = RecordedStore(_existing(self.url))
            return zarr.open_group(store, mode="r+", use_consolidated=False)
        except BaseError as error:
            raise _refused(self.url, "zarr.json", "store-read", error) from error
        except FileNotFoundError as error:
            raise StoreError(
                "store-missing",
                "There is no tract store",
                where=self.url,
                fix="Check the path, or make the store with `bgmatch run`.",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                "store-corrupt",
                f"The metadata of the store cannot be read: {error}",
                where=self.child("zarr.json"),
                fix="`bgmatch verify --repair STORE` writes it again.",
            ) from error

    def exists(self, name: str) -> bool:
        """Whether an object is there."""
        return self.tag(name) is not None

    def size(self, name: str) -> int | None:
        """Return the bytes of an object, None when it is missing."""
        try:
            with faults(self.url, name, "store-read"):
                return int(obstore.head(_existing(self.url), name)["size"])
        except FileNotFoundError:
            return None

    def tag(self, name: str) -> str | None:
        """Return what tells one version of an object from the next, None when it is missing."""
        if self.local_path is not None:
            return _tag_of_file(self.local_path / name)
        try:
            with faults(self.url, name, "store-read"):
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
            with faults(self.url, name, "store-read"):
                data = bytes(obstore.get(_existing(self.url), name).bytes())
        except FileNotFoundError as error:
            raise StoreError("object-missing", f"There is no {name!r}", where=self.url) from error
        note_read(name, len(data))
        return data

    def read_range(self, name: str, *, last: int | None = None) -> Any:  # noqa: ANN401
        """Return all bytes of an object, or the last ones, as they lie in memory.

        Raises
        ------
        FileNotFoundError
            When there is no such object.
        StoreError
            ``store-read`` when it cannot be read.
        """
        folder = self.local_path
        with faults(self.url, name, "store-read"):
            if last is not None and folder is not None:
                data: Any = read_last(folder / name, last)
            else:
                options: Any = None if last is None else {"range": {"suffix": last}}
                data = obstore.get(_existing(self.url), name, options=options).bytes()
        note_read(name, len(data))
        return data

    def read_ranges(self, name: str, starts: Sequence[int], ends: Sequence[int]) -> Iterator[Any]:
        """Yield the bytes of an object from some first to some last positions.

        Those of a local file hold until the next ones are asked for.

        Raises
        ------
        FileNotFoundError
            When there is no such object.
        StoreError
            ``store-read`` when it cannot be read.
        """
        folder = self.local_path
        with faults(self.url, name, "store-read"):
            found: Iterable[Any]
            if folder is not None:
                found = read_parts(folder / name, starts, ends)
            else:
                found = obstore.get_ranges(_existing(self.url), name, starts=starts, ends=ends)
            for part in found:
                note_read(name, len(part))
                yield part

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
            with faults(self.url, name, "store-write"):
                obstore.put(_connect(self.url), name, data, mode=mode)
        except AlreadyExistsError as error:
            raise StoreError("object-exists", f"{name!r} exists", where=self.url) from error
        except FileNotFoundError as error:
            raise bucket_missing(self.url) from error
        note_write(name, data)

    def write_parts(self, name: str, parts: Sequence[bytes]) -> None:
        """Write an object in one step from parts that follow each other, without joining them.

        Raises
        ------
        StoreError
            ``store-write`` when the place refuses.
        """
        folder = self.local_path
        if folder is None and sum(map(len, parts)) < _SMALL:
            self.write_bytes(name, b"".join(parts))
            return
        try:
            with faults(self.url, name, "store-write"):
                if folder is None:
                    # Parts of an upload go to a server at the same time.
                    obstore.put(_connect(self.url), name, parts)
                else:
                    _write_file(folder / name, parts)
        except FileNotFoundError as error:
            raise bucket_missing(self.url) from error
        note_write(name, *parts)

    def write_json(self, name: str, value: Any, *, create: bool = False) -> None:  # noqa: ANN401
        """Write an object as JSON with sorted keys."""
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=True)
        self.write_bytes(name, text.encode(), create=create)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the paths of all objects below a prefix (whole path segments), sorted."""
        try:
            with faults(self.url, prefix, "store-read"):
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
        with suppress(FileNotFoundError), faults(self.url, name, "store-write"):
            obstore.delete(_existing(self.url), name)


def _write_file(path: Path, parts: Sequence[bytes]) -> None:
    """Write a file that appears whole or not at all, in this thread, as obstore does in another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        # The name by which what a crash leaves behind is known to listings and to `verify`.
        part = path.with_name(f"{path.name}#{number}")
        with suppress(FileExistsError):
            stream = part.open("xb", buffering=0)
            break
    try:
        with stream:
            for data in parts:
                view, at = memoryview(data), 0
                while at < len(view):
                    at += stream.write(view[at:])
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@lru_cache(maxsize=32)
def _local_path(url: str) -> Path | None:
    parsed = urlparse(url)
    return Path(unquote(parsed.path)) if parsed.scheme == "file" else None


def _tag_of_file(path: Path) -> str | None:
    """Return the same of a file, without a way through another thread."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _refused(path.parent.as_uri(), path.name, "store-read", error) from error
    regular = stat.S_ISREG(found.st_mode)
    return f"{found.st_ino}/{found.st_mtime_ns}/{found.st_size}" if regular else None


@contextmanager
def faults(url: str, name: str, code: str) -> Iterator[None]:
    """Turn what a place refuses into `StoreError`; what is missing is the caller's matter.

    Parameters
    ----------
    url
        Place of the store.
    name
        Object that is read or written.
    code
        Code of the error, unless credentials are at fault (``store-denied``).
    """
    try:
        yield
    except (StoreError, FileNotFoundError, AlreadyExistsError):
        raise
    except (BaseError, OSError) as error:
        raise _refused(url, name, code, error) from error


def _refused(url: str, name: str, code: str, error: Exception) -> StoreError:
    # The kind of the error tells; its text holds addresses and numbers that look like statuses.
    fix = "Check the address, the rights, the connection and the free space."
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        code, fix = "store-denied", "Check the credentials and the rights of this user."
    elif code == "store-write" and any(text in str(error) for text in _FULL):
        code, fix = "store-full", "Make room and run the same command; what is done is kept."
    what = f"{name!r} is refused by the store: {error}".partition("\n")[0]
    return StoreError(code, what, where=url, fix=fix)


_FULL = ("(os error 28)", "(os error 122)", "No space left on device", "quota exceeded")
"""What a local disk says when it, or the share of this user, is full."""


def bucket_missing(url: str) -> StoreError:
    """Return the error of a write whose bucket does not exist."""
    return StoreError(
        "bucket-missing",
        "There is no bucket of this name",
        where=url,
        fix="Make the bucket first, or check the endpoint and the region.",
    )


def _existing(url: str) -> Any:  # noqa: ANN401
    """Connect for reading: a mistyped path is not made into an empty folder."""
    path = Location(url).local_path
    if path is not None and not path.is_dir():
        raise FileNotFoundError(path)
    return _connect(url)


@lru_cache(maxsize=32)
def _connect(url: str) -> Any:  # noqa: ANN401
    parsed = urlparse(url)
    if parsed.scheme != "file":
        return connect_remote(url)
    try:
        return LocalStore(prefix=Path(unquote(parsed.path)), mkdir=True)
    except (BaseError, OSError, ValueError) as error:
        raise StoreError(
            "store-unreachable",
            f"The store cannot be opened: {error}",
            where=url,
            fix="Check the path and its rights.",
        ) from error
