"""The error tree: every error says what went wrong, where, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = (
    "BgmatchError",
    "ClusterError",
    "ConfigError",
    "GeometryError",
    "InputError",
    "MatchError",
    "PlanError",
    "Rejected",
    "StoreError",
)


class BgmatchError(Exception):
    """Base of all errors raised on purpose by this package.

    Parameters
    ----------
    code
        Stable, machine-readable identifier such as ``"fits-truncated"``.
    what
        One sentence that says what is wrong.
    where
        File, unit, field or address that the sentence is about.
    fix
        One sentence that says what to do.
    """

    def __init__(self, code: str, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(code, what, where, fix)
        self.code = code
        self.what = what
        self.where = where
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with keyword arguments, so that errors survive the trip from a worker."""
        return (_rebuild, (type(self), self.code, self.what, self.where, self.fix))

    def __str__(self) -> str:
        """Render as ``[code] what (where). fix``."""
        place = f" ({self.where})" if self.where else ""
        advice = f" {self.fix}" if self.fix else ""
        return f"[{self.code}] {self.what.rstrip('.')}{place}.{advice}"


def _rebuild(kind: type[BgmatchError], code: str, what: str, where: str, fix: str) -> BgmatchError:
    return kind(code, what, where=where, fix=fix)


class ConfigError(BgmatchError, ValueError):
    """The configuration is not usable; nothing was started."""


class InputError(BgmatchError, ValueError):
    """One input is not usable. Under the policy ``skip`` it becomes a `Rejected`."""


class GeometryError(BgmatchError, ValueError):
    """The tract cannot be laid out from what was given."""


class StoreError(BgmatchError, OSError):
    """The store cannot be read or written as asked."""


class PlanError(BgmatchError, RuntimeError):
    """The plan cannot be carried out; refused before work started."""


class MatchError(BgmatchError, RuntimeError):
    """A background cannot be measured, matched or solved."""


class ClusterError(BgmatchError, RuntimeError):
    """The Dask cluster cannot be reached or lost its workers."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """An input that was left out, and why.

    Rejections are collected in the receipts, shown in the report, and make the
    exit code 3. They never stop the tract.
    """

    code: str
    """Stable identifier, the same as the `InputError` that caused it."""
    detail: str
    """Sentence for people: what is wrong and what to do."""
    source: str
    """Path, URL or unit that was rejected."""

    @classmethod
    def from_error(cls, error: BgmatchError, source: str) -> Rejected:
        """Make a rejection from the error that an input raised."""
        detail = error.what if not error.fix else f"{error.what.rstrip('.')}. {error.fix}"
        return cls(error.code, detail, source)
