"""Who writes: what tells one process from all others, and whether it still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ("identity", "known_dead")


def identity() -> dict[str, Any]:
    """Return what names this process: host, boot and container, process id and its birth."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "place": _place(), "pid": pid, "born": _born(pid)}


def known_dead(owner: Mapping[str, Any]) -> bool:
    """Whether an `identity` is that of a process of this machine that is no more.

    False also where it cannot be known, e.g. for a process of another machine.
    """
    place = _place()
    if not place or owner.get("place") != place:
        return False
    return bool(_born(int(owner["pid"])) != owner.get("born"))


def _place() -> str:
    """Return what tells machines, their boots and containers apart; empty where it cannot be."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *rest = text.rsplit(")", 1)[1].split()
    return "" if state in {"Z", "X"} else rest[18]
