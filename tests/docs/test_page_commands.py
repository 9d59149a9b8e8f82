"""Every command of every page exists, and its files and fields with it; what can run here runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from distributed.cli import dask_scheduler, dask_worker
from typer.testing import CliRunner

import bgmatch_dask
from bgmatch_dask.cli.main import app
from bgmatch_dask.config import RunConfig
from bgmatch_dask.service.board.routes import routes
from bgmatch_dask.store import Location
from tests.tiny_store import fill_tiny_store

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "deploy").rglob("*.md"))
PROGRAMS = ("bgmatch", "dask", "docker", "kubectl", "make", "pip", "python", "sbatch")
INDENTED = re.compile(r"(?<=\n\n)(?:    .+\n)+")
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def read(page):
    return page.read_text(encoding="utf-8")


def lines_of(page):
    """Return the commands in the blocks of a page; lines that go on are joined."""
    blocks = [*FENCED.findall(read(page)), *INDENTED.findall(read(page))]
    text = "\n".join(blocks).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line.partition(" ")[0] in PROGRAMS]


def mentioned(page):
    """Return the commands in the sentences and tables of a page, with their placeholders."""
    return re.findall(r"(?<!`)`(bgmatch [a-z][^`]*)`", read(page))


def understood(line):
    """Whether a command and all its options exist: they are read before help is given."""
    words = shlex.split(line)[1:]
    return CliRunner().invoke(app, [*words, "--help"]).exit_code == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_understood(page):
    for line in lines_of(page):
        words = shlex.split(line)
        if words[0] == "bgmatch":
            assert understood(line), line
        elif words[:2] in (["dask", "scheduler"], ["dask", "worker"]):
            known = {"scheduler": dask_scheduler, "worker": dask_worker}[words[1]].main.params
            options = {name for option in known for name in option.opts}
            assert {word for word in words if word.startswith("--")} <= options, line
        elif words[0] in {"docker", "kubectl", "sbatch", "python"}:
            files = [word for word in words if word.startswith("deploy/")]
            assert all((ROOT / file).exists() for file in files), line
            modules = [after for word, after in pairwise(words) if word == "-m"]
            assert all(find_spec(module) for module in modules), line
    for line in mentioned(page):
        assert understood(re.sub(r"\[[^\]]*\]|…", "", line)), line


def test_what_does_not_exist_is_not_understood():
    assert understood("bgmatch info store")
    assert not understood("bgmatch fly")
    assert not understood("bgmatch info store --fly")


def test_there_are_commands_on_the_pages_that_tell_how():
    found = {page.name for page in PAGES if any("bgmatch" in line for line in lines_of(page))}
    assert found >= {"README.md", "butler.md", "cluster.md", "jobs.md", "s3.md", "tutorial.md"}
    assert sum(len(mentioned(page)) for page in PAGES) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_settings_of_a_page_are_settings(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```yaml\n(.*?)```", read(page), re.DOTALL):
        values = yaml.safe_load(block)
        values.pop("tracts", None)
        RunConfig.model_validate(values)


def test_the_page_on_watching_names_what_is_served():
    text = read(ROOT / "docs/watching.md")
    served = {route for route, _, _ in routes}
    named = set(re.findall(r"`(/bgmatch/[\w.]*)", text))
    assert len(named) >= 5
    assert named <= served
    for name in re.findall(r"`(bgmatch_dask/[\w./]+|deploy/[\w./]+)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`bgmatch_dask\.(\w+)", text):
        assert hasattr(bgmatch_dask, name) or import_module(f"bgmatch_dask.{name}")


def test_the_certificates_of_the_page_on_tls_are_made(tmp_path):
    (line,) = [line for line in lines_of(ROOT / "deploy/tls/README.md") if "python" in line]
    words = shlex.split(line)
    script = str(ROOT / words[1])
    subprocess.run([sys.executable, script, *words[2:]], cwd=tmp_path, check=True, timeout=120)
    text = read(ROOT / "deploy/tls/README.md")
    for name in set(re.findall(r"certificates/\w+\.pem", text)):
        assert (tmp_path / name).is_file(), name


def test_the_commands_of_the_page_on_s3_run(s3, tmp_path, monkeypatch):
    """As they stand, but for the bucket; that a run there gives the bytes of a run here is shown
    elsewhere, so its store is made at once."""
    monkeypatch.chdir(tmp_path)
    bucket = s3.make_bucket()
    fill_tiny_store(Location.of(f"{bucket}/tract.zarr"))
    lines = [line for line in lines_of(ROOT / "docs/s3.md") if line.startswith("bgmatch")]
    assert [line.split()[1] for line in lines] == ["run", "info", "export"]
    for line in lines[1:]:
        result = CliRunner().invoke(app, shlex.split(line.replace("s3://bucket", bucket))[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"
    assert list((tmp_path / "out").glob("*.fits"))
