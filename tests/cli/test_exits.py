"""How a command ends when it is interrupted."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_one_more_ctrl_c_while_the_process_ends_leaves_its_exit_code(name, code):
    program = f"""
import os, signal
import typer
from bgmatch_dask.cli.exits import reported

signal.signal(signal.SIGINT, signal.default_int_handler)

class Impatient:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGINT):
        kill(pid, number)

# Modules are torn down after Python has given signals their default actions back.
again = Impatient()
app = typer.Typer()

@app.command()
def main():
    with reported():
        os.kill(os.getpid(), signal.{name})
        signal.pause()

app()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    assert "run the same command again" in done.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("place", ["destructor", "collector", "text"])
def test_a_signal_at_an_awkward_place_ends_the_command_as_any_other(name, code, place, tmp_path):
    program = f"""
import gc, os, signal
import typer
from bgmatch_dask.cli.exits import reported

signal.signal(signal.SIGINT, signal.default_int_handler)

def kill(*_):
    gc.callbacks.clear()
    os.kill(os.getpid(), signal.{name})

class Thing:
    __del__ = kill

app = typer.Typer()

@app.command()
def main():
    with reported():
        if {place!r} == "destructor":
            Thing()
        elif {place!r} == "collector":
            gc.callbacks.append(kill)
            gc.collect()
        else:
            exec("kill()")
        signal.pause()

app()
"""
    # As `python -m bgmatch_dask`: only there Python looks once more at what has happened.
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "program"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "run the same command again" in done.stderr
