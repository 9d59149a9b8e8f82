import gc
import os

from bgmatch_dask.config import ClusterConfig
from bgmatch_dask.pipeline.collector import keep_loaded, loaded_kept
from bgmatch_dask.service.cluster import connect


class _Ring:
    """Garbage that only the collector finds."""

    found = 0

    def __init__(self):
        self.me = self

    def __del__(self):
        _Ring.found += 1


def test_what_is_loaded_is_left_alone_until_the_end_and_new_garbage_is_found():
    old, before, _Ring.found = _Ring(), gc.get_freeze_count(), 0
    with loaded_kept():
        assert gc.get_freeze_count() > before + 1000
        _Ring()
        gc.collect()
        assert _Ring.found == 1
        del old
        gc.collect()
        assert _Ring.found == 1
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert _Ring.found == 2


def _kept(stage):
    before = gc.get_freeze_count()
    keep_loaded(stage)
    return os.getpid(), gc.get_freeze_count() - before


def test_a_worker_keeps_what_it_loaded_once_for_each_stage():
    with connect(ClusterConfig(workers=1)) as client:
        found = [client.submit(_kept, stage, pure=False).result() for stage in "aab"]
    assert {pid for pid, _ in found} != {os.getpid()}
    kept = [number for _, number in found]
    assert kept[0] > 1000
    assert kept[1] == 0
    assert kept[2] > 0
