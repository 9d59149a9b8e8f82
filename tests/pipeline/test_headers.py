"""Headers that workers read give the plan that headers read here give."""

from __future__ import annotations

from dataclasses import replace

from bgmatch_dask.pipeline import headers
from bgmatch_dask.pipeline.engine import DaskEngine, SerialEngine
from bgmatch_dask.pipeline.plan import make_plan
from tests.conftest import make_job


class Backwards(SerialEngine):
    """Finishes the last task first, as a cluster may."""

    def map(self, function, tasks, name):
        assert name == "headers"
        assert len({task.unit for task in tasks}) == len(tasks) > 1
        return reversed(list(super().map(function, tasks, name)))


def test_the_plan_does_not_depend_on_who_reads_the_headers(
    cluster, simulated, tmp_path, monkeypatch
):
    monkeypatch.setattr(headers, "_BATCH", 3)
    warps = tmp_path / "warps"
    warps.mkdir()
    for path in (simulated / "warps").glob("*.fits"):
        (warps / path.name).symlink_to(path)
    for name in ("0", "m", "z"):
        (warps / f"{name}.fits").write_bytes(b"no image")
    config = make_job(warps, tmp_path / "t.zarr")
    here = make_plan(config)
    assert len(here.rejected) == 3
    for engine in (Backwards(), DaskEngine(cluster)):
        assert replace(make_plan(config, engine), location=here.location) == here
