"""Object stores: their options travel in the URL, their secrets never leave the environment.

``s3://bucket/tract.zarr?endpoint=http%3A%2F%2F127.0.0.1%3A9000&allow_http=true`` says all that a
worker needs to reach a store, so that nothing has to be set up on workers. Credentials are read
where a connection is made, from the variables that S3 clients usually read (``AWS_…``).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from obstore.exceptions import BaseError
from obstore.store import from_url

from bgmatch_dask.errors import ConfigError, StoreError

__all__ = ("REMOTE_SCHEMES", "connect_remote", "split_options", "with_options")

REMOTE_SCHEMES = frozenset({"s3", "gs", "az", "https", "http", "memory"})
"""Schemes of places that are not folders of this machine."""

_STORE_OPTIONS: Mapping[str, frozenset[str]] = {
    "s3": frozenset(
        {
            *("endpoint", "region", "skip_signature", "virtual_hosted_style_request"),
            *("request_payer", "unsigned_payload"),
        }
    ),
    "gs": frozenset({"service_account_path", "application_credentials", "skip_signature"}),
    "az": frozenset({"account_name", "endpoint", "skip_signature", "use_emulator"}),
}
_CLIENT_OPTIONS = frozenset(
    {"allow_http", "allow_invalid_certificates", "connect_timeout", "proxy_url", "timeout"}
)
_RETRY_OPTIONS = frozenset({"max_retries", "retry_timeout"})
_ALIASES: Mapping[str, str] = {"endpoint_url": "endpoint"}
_SECRETS = ("secret", "token", "password", "access_key", "account_key", "sas", "credential_")


def split_options(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL without its query, and the options that the query held."""
    parts = urlsplit(url)
    plain = urlunsplit(parts._replace(query="", fragment=""))
    # The standard library drops the empty host of memory:///x.
    if parts.scheme == "memory" and not parts.netloc:
        plain = f"memory://{parts.path}"
    return plain, dict(parse_qsl(parts.query, keep_blank_values=True))


def with_options(url: str, options: Mapping[str, str]) -> str:
    """Return a remote URL with its options in a fixed order; new ones win over those it has.

    Raises
    ------
    ConfigError
        ``store-options`` for an option that the scheme does not have, or for a secret.
    """
    plain, present = split_options(url)
    merged: dict[str, str] = {}
    for name, value in (present | dict(options)).items():
        key = name.lower().removeprefix("aws_")
        merged[_ALIASES.get(key, key)] = value
    scheme = urlsplit(url).scheme
    for name in merged:
        _check_option(scheme, name)
    query = urlencode(sorted(merged.items()))
    return plain.rstrip("/") + (f"?{query}" if query else "")


def _check_option(scheme: str, name: str) -> None:
    known = _STORE_OPTIONS.get(scheme, frozenset()) | _CLIENT_OPTIONS | _RETRY_OPTIONS
    if name in known:
        return
    if any(part in name for part in _SECRETS):
        raise ConfigError(
            "store-options",
            f"The option {name!r} is a secret, which would end up in the store and its report",
            fix="Set it in the environment of the driver and the workers, e.g. AWS_…",
        )
    raise ConfigError(
        "store-options",
        f"A store at {scheme}:// has no option {name!r}",
        fix=f"Options: {', '.join(sorted(known))}.",
    )


def connect_remote(url: str) -> Any:  # noqa: ANN401
    """Return obstore's view of a remote place.

    Raises
    ------
    StoreError
        ``store-unreachable`` when the address or the options make no sense.
    """
    plain, options = split_options(url)
    client: dict[str, Any] = {k: v for k, v in options.items() if k in _CLIENT_OPTIONS}
    for name in ("allow_http", "allow_invalid_certificates"):
        if name in client:
            client[name] = client[name].lower() in {"1", "true", "yes"}
    config = {k: v for k, v in options.items() if k not in _CLIENT_OPTIONS | _RETRY_OPTIONS}
    make: Any = from_url  # Its overloads, one per kind of store, cannot be chosen here.
    try:
        return make(
            plain,
            # Web servers and memory take no configuration of their own.
            **({"config": config} if config else {}),
            **({"client_options": client} if client else {}),
            **_retries(options),
        )
    except (BaseError, OSError, ValueError, TypeError) as error:
        raise StoreError(
            "store-unreachable",
            f"The store cannot be opened: {error}",
            where=url,
            fix="Check the address, the options and the credentials.",
        ) from error


def _retries(options: Mapping[str, str]) -> dict[str, Any]:
    retry: dict[str, Any] = {}
    if "max_retries" in options:
        retry["max_retries"] = int(options["max_retries"])
    if "retry_timeout" in options:
        retry["retry_timeout"] = timedelta(seconds=float(options["retry_timeout"]))
    return {"retry_config": retry} if retry else {}
