"""Where input files lie: folders of this machine, object stores and web servers.

An input is named by an absolute path or by a URL. Credentials of object stores are read from the
environment; options such as ``endpoint`` may stand in the URL's query (`bgmatch_dask.remote`).
"""

from __future__ import annotations

import io
import os
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError

from bgmatch_dask.errors import InputError, StoreError
from bgmatch_dask.remote import connect_remote, split_options

__all__ = (
    "UNREACHABLE",
    "Stat",
    "file_name",
    "is_remote",
    "lasting_name",
    "list_remote",
    "open_input",
    "read_input",
    "stat_input",
)

UNREACHABLE = "input-unreachable"
"""Code of a fault of the connection, which says nothing about the file itself."""

_BUCKETS = frozenset({"s3", "gs", "az", "memory"})
_WEB = frozenset({"http", "https"})
_BLOCK = 1 << 17
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Stat:
    """What tells one version of a file from the next."""

    size: int
    """Bytes."""
    modified_ns: int
    """Time of the last change [ns]; 0 where the server does not say."""
    etag: str = ""
    """The server's own mark of the version; empty for a file on disk."""


def is_remote(name: str) -> bool:
    """Whether a name is a URL of an object store or a web server."""
    return urlsplit(name).scheme in _BUCKETS | _WEB


def file_name(name: str) -> str:
    """Return the last part of a path or URL."""
    return Path(unquote(urlsplit(name).path)).name if is_remote(name) else Path(name).name


def lasting_name(name: str) -> str:
    """Return a name without what changes each time it is given out: a web address's signature."""
    return split_options(name)[0] if urlsplit(name).scheme in _WEB else name


def stat_input(name: str) -> Stat:
    """Return size and version of an input.

    Raises
    ------
    InputError
        ``path-unreadable`` when there is none, ``input-unreachable`` when nobody answers.
    FileNotFoundError, PermissionError
        For files on disk.
    """
    if not is_remote(name):
        status = Path(name).stat()
        if not stat.S_ISREG(status.st_mode):
            # A pipe or a device would keep its reader waiting for ever.
            raise _unreadable(name, "It is not a file")
        return Stat(status.st_size, status.st_mtime_ns)
    if urlsplit(name).scheme in _WEB:
        with _web(name, "HEAD") as answer:
            length = answer.headers.get("Content-Length", "")
            etag = answer.headers.get("ETag", "") or answer.headers.get("Last-Modified", "")
        return Stat(int(length) if length.isdecimal() else 0, 0, etag)
    store, key = _bucket(name)
    with _asked(name):
        meta = obstore.head(store, key)
    modified = int(meta["last_modified"].timestamp() * 1e9)
    return Stat(int(meta["size"]), modified, str(meta["e_tag"] or ""))


def open_input(name: str) -> IO[bytes]:
    """Open an input for reading here and there: of an object only the parts read are fetched."""
    if not is_remote(name):
        return Path(name).open("rb")
    if urlsplit(name).scheme in _WEB:
        raise ValueError("web servers need not serve parts; use read_input")
    return io.BufferedReader(_Ranged(name), _BLOCK)


def read_input(name: str, limit: int) -> bytes | None:
    """Return all bytes of an input, None when there are more than ``limit``."""
    if not is_remote(name):
        with Path(name).open("rb") as stream:
            data = stream.read(limit + 1)
    elif urlsplit(name).scheme in _WEB:
        with _web(name, "GET") as answer:
            data = answer.read(limit + 1)
    else:
        if stat_input(name).size > limit:
            return None
        store, key = _bucket(name)
        with _asked(name):
            data = bytes(obstore.get(store, key).bytes())
    return data if len(data) <= limit else None


def list_remote(name: str) -> tuple[str, ...]:
    """Return the URLs of all objects below a prefix, sorted; empty when there are none."""
    store, key = _bucket(name)
    parts = urlsplit(name)
    query = f"?{parts.query}" if parts.query else ""
    with _asked(name):
        keys = sorted(str(item["path"]) for page in obstore.list(store, key) for item in page)
    return tuple(f"{parts.scheme}://{parts.netloc}/{quote(k)}{query}" for k in keys)


class _Ranged(io.RawIOBase):
    """An object of a store, read by ranges."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._size = stat_input(name).size
        self._store, self._key = _bucket(name)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        with _asked(self._name):
            part = obstore.get_range(self._store, self._key, start=self._at, length=length)
        buffer[: len(part)] = memoryview(part)
        self._at += len(part)
        return len(part)


def _bucket(name: str) -> tuple[Any, str]:
    """Return the store of an object's bucket, and the object's key."""
    parts = urlsplit(name)
    return _connected(f"{parts.scheme}://{parts.netloc}", parts.query), unquote(parts.path[1:])


@lru_cache(maxsize=32)
def _connected(bucket: str, query: str) -> Any:  # noqa: ANN401
    return connect_remote(f"{bucket}?{query}" if query else bucket)


@contextmanager
def _asked(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise _unreadable(name, "There is no such object") from error
    except (BaseError, StoreError) as error:
        raise _unreachable(name, str(error).partition("\n")[0]) from error


@contextmanager
def _web(name: str, method: str) -> Iterator[Any]:
    request = urllib.request.Request(name, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            yield answer
    except urllib.error.HTTPError as error:
        error.close()
        # A signed address expires; asked for anew, it gives the file.
        expired = bool(urlsplit(name).query) and error.code in {400, 401, 403}
        if error.code in {400, 401, 403, 404, 410} and not expired:
            raise _unreadable(name, f"The server answers {error.code} {error.reason}") from error
        raise _unreachable(name, f"The server answers {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        raise _unreachable(name, str(error)) from error


def _unreadable(name: str, what: str) -> InputError:
    return InputError(
        "path-unreadable", what, where=name, fix="Check the address and the credentials."
    )


def _unreachable(name: str, what: str) -> InputError:
    return InputError(
        UNREACHABLE,
        f"The input cannot be fetched: {what}",
        where=split_options(name)[0],
        fix="Check the connection and run again.",
    )
