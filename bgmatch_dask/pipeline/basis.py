"""What a unit depends on, and why it has to be done again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import bgmatch_dask
from bgmatch_dask import __version__
from bgmatch_dask.config import RunConfig
from bgmatch_dask.store import Ledger
from bgmatch_dask.store.receipt import Basis, Receipt, digest_of
from bgmatch_dask.store.traffic import checksum

__all__ = ("code_version", "differing_fields", "settings_of", "unit_basis", "why_again")

_SCIENCE = ("background", "coadd", "numerics", "warps", "geometry.py", "maskplanes.py")
"""Parts of the package that decide about numbers."""


def settings_of(config: RunConfig, *names: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return fields of the configuration by their full names.

    Parameters
    ----------
    config
        The configuration.
    names
        Fields (``match.order``) or whole sections (``coadd``).
    more
        Further settings that are not fields (JSON types).
    """
    found: dict[str, Any] = {}
    for name in names:
        section, _, field = name.partition(".")
        model: BaseModel = getattr(config, section)
        values = model.model_dump(mode="json")
        for key in [field] if field else values:
            found[f"{section}.{key}"] = values[key]
    return found | more


def unit_basis(
    settings: Mapping[str, Any],
    *,
    inputs: Any = None,  # noqa: ANN401
    upstream: Any = None,  # noqa: ANN401
) -> str:
    """Return the basis of a unit as the text that its receipt carries.

    Parameters
    ----------
    settings
        From `settings_of`.
    inputs
        What identifies the input files; JSON types.
    upstream
        What identifies the stored objects that the unit reads; JSON types.
    """
    parts = ["" if part is None else digest_of(part) for part in (inputs, upstream)]
    return str(Basis(parts[0], digest_of(settings), code_version(), parts[1]))


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return the version and a digest of the sources that decide about numbers."""
    top = Path(bgmatch_dask.__file__).parent
    sources: list[Path] = []
    for name in _SCIENCE:
        path = top / name
        sources += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    content = b"".join(p.read_bytes() for p in sources if p.is_file())
    return f"{__version__}+{checksum(content)[:8]}"


def why_again(ledger: Ledger, known: Mapping[str, Receipt], todo: Iterable[Any]) -> list[str]:
    """Return sentences that say why units are done, for people.

    Parameters
    ----------
    ledger
        Where the settings of earlier receipts lie.
    known
        Receipts of earlier runs, by unit.
    todo
        Tasks that are to be done.

    Returns
    -------
    list of str
        For example ``config changed: background.bin_size 128 → 256: 412 units``.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    for task in todo:
        before = known.get(task.unit)
        pairs["" if before is None else before.digest, task.digest] += 1
    reasons: Counter[str] = Counter()
    for (old, new), count in pairs.items():
        reasons[_reason(ledger, old, new)] += count
    return [f"{text}: {count} unit{'s' * (count != 1)}" for text, count in reasons.items()]


def _reason(ledger: Ledger, before: str, now: str) -> str:
    if not before:
        return "not done yet"
    old, new = Basis.parse(before), Basis.parse(now)
    changed = old.changed(new)
    fields = differing_fields(ledger, old.settings, new.settings)
    texts = {
        "inputs": "input files changed",
        "settings": f"config changed{f': {fields}' if fields else ''}",
        "code": f"code changed: {old.code} → {new.code}",
        "upstream": "stored warps or offsets changed",
    }
    # Changed settings and code bring changed upstream objects with them: the cause is enough.
    causes = [name for name in changed if name != "upstream"] or list(changed)
    return "; ".join(texts[name] for name in causes)


def differing_fields(ledger: Ledger, before: str, now: str) -> str:
    """Return the settings that differ between two digests, for people; empty if not known."""
    old, new = ledger.settings(before), ledger.settings(now)
    if not (old and new):
        return ""
    changed = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return ", ".join(f"{n} {_brief(old.get(n))} → {_brief(new.get(n))}" for n in changed)


def _brief(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
