"""Every broken or hostile input is rejected with its code; the tract is finished regardless."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract
from tests.hostile.cases import CASES, LIMIT_BYTES, MAX_MEGAPIXELS

ROOT = Path(__file__).parents[2]
READERS = (
    *("catalogue", "fits_checks", "fits_structure", "lsst", "places", "profile", "resample"),
    *("source", "sources", "tile_sizes", "tiles", "tract"),
)
"""Modules that inputs go through."""
CODES = {case.name: case.code for case in CASES}


def shown(name: str) -> str:
    """Return a file name as people see it: bytes that are no text are escaped."""
    safe = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in safe)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Good warps of three visits, and all the others."""
    place = tmp_path_factory.mktemp("hostile")
    config = SimulationConfig(visits=3, patches=(2, 1), patch_size=128, border=16)
    simulate_tract(place, config)
    warps = place / "warps"
    good = min(warps.iterdir())
    for case in CASES:
        case.make(warps / case.name, good)
    return warps


def test_the_table_is_long_and_its_names_are_unique():
    assert len(CASES) >= 60
    assert len(CODES) == len(CASES)


def test_all_are_rejected_no_worker_dies_and_the_tract_is_finished(folder, tmp_path):
    before = {path.name for path in tmp_path.parent.iterdir()}
    store = tmp_path / "t.zarr"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bgmatch_dask", "run", str(folder), "--store", str(store)),
            *("--workers", "2", "--json", "--quiet", "--set", "background.bin_size=32"),
            *("--set", f"inputs.max_megapixels={MAX_MEGAPIXELS}"),
        ],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    summary = json.loads(done.stdout)
    found = {r["source"].removeprefix(f"{folder}/"): r["code"] for r in summary["rejected"]}
    assert found == {shown(name): code for name, code in CODES.items()}
    assert len(summary["visits"]) == 3
    assert {v["status"] for v in summary["visits"]} <= {"matched", "reference"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.zarr"]
    assert {path.name for path in tmp_path.parent.iterdir()} == before
    report = (store / "runs/main/report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in report
    assert "\x1b" not in report


MEASURE = """
import json, sys
from bgmatch_dask.config import load_config
from bgmatch_dask.errors import BgmatchError
from bgmatch_dask.warps.catalogue import scan_inputs
from bgmatch_dask.warps.lsst import read_lsst_warp
from bgmatch_dask.warps.profile import load_profile

good, limit, *paths = sys.argv[1:]
limit = int(limit)

def look(path):
    catalogue = scan_inputs([path], load_profile("lsst"), max_pixels=limit)
    for file in catalogue.files:
        try:
            read_lsst_warp(file.path, max_pixels=limit)
        except BgmatchError:
            pass

def memory(name):
    # The peak that `resource` tells is that of the parent too, from before this program began.
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024

look(good)
grown = {}
for path in paths:
    with open("/proc/self/clear_refs", "w") as switch:
        switch.write("5")
    before = memory("VmRSS:")
    look(path)
    grown[path] = memory("VmHWM:") - before
print(json.dumps(grown))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_none_allocates_more_than_the_limit(folder):
    """The peak of a process that reads them one after the other; a good one is read first."""
    # A folder that is named stands for its files.
    names = [name for name in CODES if os.fsencode(name).isascii() and name != "folder.fits"]
    done = subprocess.run(
        [
            *(sys.executable, "-c", MEASURE, str(min(folder.glob("warp_*")))),
            *(str(int(MAX_MEGAPIXELS * 1e6)), *(str(folder / name) for name in names)),
        ],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    grown = json.loads(done.stdout)
    worst = max(grown, key=grown.get)
    assert grown[worst] <= LIMIT_BYTES, (worst, grown[worst])
    # The yardstick works: files of 300 kB that inflate to the limit are seen.
    for name in ("bomb.fits.gz", "swollen.fits.gz"):
        assert grown[str(folder / name)] > 0.5 * LIMIT_BYTES


def test_the_list_of_codes_names_them_all():
    page = (ROOT / "docs/inputs.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([a-z0-9-]+)` \|", page, flags=re.MULTILINE))
    warps = ROOT / "bgmatch_dask/warps"
    text = "\n".join((warps / f"{name}.py").read_text(encoding="utf-8") for name in READERS)
    raised = set(re.findall(r"InputError\(\s*\"([a-z0-9-]+)\"", text))
    raised |= {"input-unreachable"} | set(CODES.values())
    assert raised - named == set()
