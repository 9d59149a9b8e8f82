"""The control plane is bounded: all units are done, and the scheduler keeps nothing of them."""

from __future__ import annotations

import pytest

control_plane = pytest.importorskip("benchmarks.control_plane")


def test_many_units_leave_nothing_behind(cluster, tmp_path):
    template = control_plane.template(tmp_path)
    plan = control_plane.plan_of(tmp_path, control_plane.files(template, visits=20, side=5))
    figures = control_plane.carry_out(plan, cluster)
    assert figures["units"] == len(plan.ingest) == 500
    assert figures["tasks on the scheduler after it"] == 0
    # A few tasks per thread, however many units there are.
    assert 0 < figures["most tasks in flight"] <= 3 * 2
    assert len(figures["driver memory by quarter [MB]"]) == 5
