"""Which vector files run, and the summary of the worst deviations."""

from __future__ import annotations

from pathlib import Path

import pytest
from deviations import BARS, Deviations

HERE = Path(__file__).resolve().parent
DEFAULT = HERE.parents[1].parent / "shared" / "vectors"
WORST = pytest.StashKey[dict[tuple[str, str], tuple[float, str]]]()
CALLS = pytest.StashKey[dict[str, list[int]]]()


def pytest_addoption(parser):
    parser.addoption(
        "--vectors",
        metavar="DIR",
        default=None,
        help="folder of reference vectors (*.npz, searched with its subfolders); "
        "default: ../shared/vectors beside the repository, if it exists",
    )


def pytest_configure(config):
    config.stash[WORST] = {}
    config.stash[CALLS] = {}


def _files(config):
    asked = config.getoption("--vectors", None)
    folders = [HERE / "vectors"]
    if asked is not None:
        folders.append(Path(asked).resolve())
        if not any(folders[-1].rglob("*.npz")):
            raise pytest.UsageError(f"--vectors: there is no *.npz file under {asked}")
    elif DEFAULT.is_dir():
        folders.append(DEFAULT)
    for folder in folders:
        for path in sorted(folder.rglob("*.npz")):
            yield pytest.param(path, id=f"{path.parent.name}/{path.stem}")


def pytest_generate_tests(metafunc):
    if "vector_file" in metafunc.fixturenames:
        metafunc.parametrize("vector_file", list(_files(metafunc.config)))


@pytest.fixture
def deviations(request):
    found = Deviations()
    yield found
    worst = request.config.stash[WORST]
    for (kind, quantity), (value, label) in found.worst.items():
        if value >= worst.get((kind, quantity), (-1.0, ""))[0]:
            worst[kind, quantity] = (value, f"{request.node.callspec.id} {label}")
    for kind, (compared, failing) in found.calls.items():
        count = request.config.stash[CALLS].setdefault(kind, [0, 0])
        count[0] += compared
        count[1] += failing


def pytest_terminal_summary(terminalreporter, config):
    if not config.stash[WORST]:
        return
    terminalreporter.section("conformance: worst deviation from the reference vectors")
    for (kind, quantity), (value, where) in sorted(config.stash[WORST].items()):
        bar = BARS[quantity]
        terminalreporter.line(f"{kind:<11} {quantity:<24} {value:9.2e}  (bar {bar:.0e})  {where}")
    for kind, (calls, failing) in sorted(config.stash[CALLS].items()):
        terminalreporter.line(f"{kind:<11} {calls} calls, {failing} of them fail as upstream does")
