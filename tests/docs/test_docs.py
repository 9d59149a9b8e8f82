"""What the documents say is true: commands run, the reference is complete, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bgmatch_dask
from bgmatch_dask.cli.main import app
from bgmatch_dask.config import RunConfig, describe_config, load_job

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def bgmatch(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == "bgmatch"
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


def test_the_configuration_reference_is_what_the_program_has():
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    assert describe_config(RunConfig()) in page


def test_the_commands_reference_names_all_commands():
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    for command in (
        "demo",
        "simulate",
        "plan",
        "run",
        "report",
        "export",
        "info",
        "config show",
        "match-warps",
        "submit",
        "jobs",
        "status",
        "watch",
        "logs",
        "cancel",
        "resume",
        "doctor",
        "diagnostics",
    ):
        assert f"`bgmatch {command}" in page


def test_lsst_names_map_to_fields_that_exist():
    page = (ROOT / "docs/upstream_names.md").read_text(encoding="utf-8")
    data = RunConfig().model_dump()
    # Sections are in lower case, unlike classes.
    for section, field in re.findall(r"`([a-z_]+)\.(\w+)`", page):
        assert field in data[section], f"{section}.{field}"
    for name, attribute in re.findall(r"`([A-Z]\w+)\.(\w+)`", page):
        source = "".join(p.read_text("utf-8") for p in (ROOT / "bgmatch_dask").rglob("*.py"))
        body = re.search(rf"^class {name}\b.*?(?=^\S|\Z)", source, re.MULTILINE | re.DOTALL)
        assert body, name
        assert re.search(rf"^    (?:def )?{attribute}\b", body[0], re.MULTILINE), attribute


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for line in commands(page):
            if line.startswith("make "):
                assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE), line


def test_every_error_code_of_the_troubleshooting_table_exists():
    page = (ROOT / "docs/when_it_breaks.md").read_text(encoding="utf-8")
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "bgmatch_dask").rglob("*.py"))
    for row in re.findall(r"^\| (`[a-z0-9-]+`(?:, `[a-z0-9-]+`)*) \|", page, re.MULTILINE):
        for code in re.findall(r"`([a-z0-9-]+)`", row):
            assert f'"{code}"' in source, code


@pytest.mark.slow
def test_the_commands_of_readme_and_tutorial_run(orion, monkeypatch):
    """Every command, in order, where the run of the tutorial has already been made."""
    folder, first = orion
    monkeypatch.chdir(folder)
    lines = commands(ROOT / "README.md") + commands(ROOT / "docs/tutorial.md")
    assert lines.count(first) == 2
    for line in lines:
        if line != first and not line.startswith("make "):
            bgmatch(line)
    assert (folder / "mosaic" / "coadd.fits").exists()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.slow
def test_the_command_of_the_cluster_page_runs(cluster, simulated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sim").symlink_to(simulated)
    line = next(line for line in commands(ROOT / "docs/cluster.md") if "--scheduler" in line)
    bgmatch(line.replace("tcp://127.0.0.1:8786", cluster.scheduler.address))


@pytest.mark.slow
def test_the_commands_of_the_pages_on_clusters_and_jobs_run(simulated, tmp_path, monkeypatch):
    """The job file of the page, submitted as the page says, watched to its end, and the doctor."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BGMATCH_STATE", str(tmp_path / "state"))
    (tmp_path / "sim").symlink_to(simulated)
    page = (ROOT / "docs/jobs.md").read_text(encoding="utf-8")
    first, tracts = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "job.yaml").write_text(first)
    (tmp_path / "tracts.yaml").write_text(tracts)
    lines = commands(ROOT / "docs/jobs.md") + commands(ROOT / "docs/cluster.md")
    assert len(lines) == 7
    for line in lines:
        if "--scheduler" not in line:
            bgmatch(line)
    assert (tmp_path / "sim.zarr/runs/main/commit.json").exists()
    watching = (ROOT / "docs/watching.md").read_text(encoding="utf-8")
    assert (tmp_path / "sim.zarr" / "runs/main/board/board.json").exists()
    (block,) = re.findall(r"```python\n(.*?)```", watching, re.DOTALL)
    names = {"bgmatch_dask": bgmatch_dask}
    exec(compile(block.replace("tract.zarr", "sim.zarr"), "watching.md", "exec"), names)
    assert names["board"].board.outcome == "finished"
    assert [config.store.url for config in load_job("tracts.yaml")] == ["g.zarr", "r.zarr"]


def test_tests_of_the_table_of_faults_exist():
    page = (ROOT / "docs/upstream_faults.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([FR])-?(\d+) \|(.*)\|$", page, re.MULTILINE)
    expected = [("F", n) for n in range(1, 58)] + [("R", n) for n in range(1, 22)]
    assert [(kind, int(number)) for kind, number, _ in rows] == expected
    without = []
    for kind, number, row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        if not named:
            assert row.rstrip().endswith("| none")
            without.append(f"{kind}{number}")
        for path, name in named:
            source = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{path}::{name}"
    # What no test can show is documentation, layout, or said to be open.
    assert set(without) <= {"F54", "R12", "R13", "R14", "R16"}
