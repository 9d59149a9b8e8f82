"""The command: chooses parts, runs them, and writes JSON, history and report."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.compare import compare
from benchmarks.html import write_html
from benchmarks.machine import describe_machine
from benchmarks.measure import ROOT, worker_environment
from benchmarks.progress import Progress
from benchmarks.results import Check, PartResult
from benchmarks.sizes import SIZES, Size

__all__ = ("PARTS", "main", "run_parts", "verdict")

PARTS = ("stages", "scaling", "peers", "accuracy", "kernels")
"""Parts in the order of the report."""

SCHEMA = 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    options = _parser().parse_args(arguments)
    os.environ.update(worker_environment())
    # Other programs run in folders of their own.
    out: Path = options.out.resolve()
    size = SIZES["full" if options.full else "tiny" if options.tiny else "quick"]
    parts = options.parts.split(",") if options.parts else list(PARTS)
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        _parser().error(f"unknown parts: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    record = run_parts(size, parts, out / "work", quiet=options.quiet)
    if options.compare:
        record["compared"] = compare(json.loads(options.compare.read_text("utf-8")), record)
    _write(record, out)
    if not options.keep:
        shutil.rmtree(out / "work", ignore_errors=True)
    if options.json:
        print(json.dumps(record, indent=1))
    else:
        _print(record, out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bgmatch bench", description=__doc__)
    add = parser.add_argument
    add("--full", action="store_true", help="thorough sizes; takes about half an hour")
    add("--tiny", action="store_true", help="only to see that everything runs")
    add("--parts", metavar="A,B", help=f"of {', '.join(PARTS)} (default: all)")
    add("--compare", type=Path, metavar="OLD.json", help="compare with an earlier record")
    add("--out", type=Path, default=Path("bench-output"), help="folder for records and report")
    add("--keep", action="store_true", help="keep simulated tracts and stores for the next time")
    add("--json", action="store_true", help="print the record")
    add("--quiet", "-q", action="store_true", help="no progress")
    return parser


def run_parts(size: Size, parts: Sequence[str], work: Path, *, quiet: bool) -> dict[str, Any]:
    """Run parts and return the record: machine, time, and what each part found."""
    work.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "size": size.name,
        "machine": describe_machine(),
        "parts": {},
    }
    expected = {name: size.part_seconds[name] for name in parts}
    progress = Progress(expected, None if quiet else _say)
    for name in parts:
        progress.part(name)
        result = _run_part(name, size, work, progress)
        record["parts"][name] = result.to_json()
        if not quiet:
            _say(f"bench: {name} took {result.seconds:.0f} s")
    record["seconds"] = time.perf_counter() - start
    return record


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _run_part(name: str, size: Size, work: Path, progress: Progress) -> PartResult:
    start = time.perf_counter()
    module = importlib.import_module(f"benchmarks.{name}")
    result: PartResult = module.run(size, work, progress)
    return replace(result, seconds=time.perf_counter() - start)


def _commit() -> str:
    """Return the commit of the source tree, read from Git's own files."""
    git = ROOT / ".git"
    if git.is_file():
        git = Path(git.read_text(encoding="utf-8").partition(":")[2].strip())
    head = git / "HEAD"
    if not head.exists():
        return ""
    text = head.read_text(encoding="utf-8").strip()
    for folder in (git, git.parent.parent):
        ref = folder / text.partition(" ")[2]
        if text.startswith("ref:") and ref.is_file():
            return ref.read_text(encoding="utf-8").strip()[:12]
    return "" if text.startswith("ref:") else text[:12]


def _write(record: dict[str, Any], out: Path) -> None:
    history = out / "history"
    history.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1)
    stamp = record["date"].replace(":", "").replace("+0000", "Z")
    (history / f"{stamp}-{record['size']}.json").write_text(text, encoding="utf-8")
    (out / "bench.json").write_text(text, encoding="utf-8")
    write_html(record, _history(history), out / "bench.html")


def _history(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return [record for record in found if record.get("schema") == SCHEMA]


def _print(record: dict[str, Any], out: Path) -> None:
    for part in record["parts"].values():
        print(f"\n{part['title']}")
        for figure in part["figures"]:
            low, high = figure["low"], figure["high"]
            spread = f"  ({low:.4g} … {high:.4g})" if figure["repeats"] > 1 else ""
            print(f"  {figure['key']:<48} {figure['value']:>10.4g} {figure['unit']}{spread}")
        for check in part["checks"]:
            print(f"  {verdict(check)}")
        for name, why in part["skipped"].items():
            print(f"  skipped {name}: {why}")
    if record.get("compared") == []:
        print("\nnothing to compare: the earlier record has other sizes or parts")
    for row in record.get("compared", []):
        print(f"  {row['key']:<48} {row['old']:>10.4g} -> {row['new']:<10.4g} {row['verdict']}")
    print(f"\n{record['seconds']:.0f} s; report {out / 'bench.html'}, record {out / 'bench.json'}")


def verdict(check: dict[str, Any]) -> str:
    """Return a check in one line."""
    known = Check(**{name: check[name] for name in Check.__dataclass_fields__})
    word = ("met    " if known.met else "NOT MET") if known.judged else "--full "
    sign = "≤" if known.at_most else "≥"
    return f"{word} {known.claim}: {known.value:.3g} {sign} {known.limit:g} {known.unit}"
