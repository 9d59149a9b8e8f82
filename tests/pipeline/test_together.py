"""Short units go together, the last ones alone, and what fails is told as if it went alone."""

import pytest

from bgmatch_dask.config import ClusterConfig
from bgmatch_dask.pipeline.engine import DaskEngine
from bgmatch_dask.pipeline.together import Done, Queue, Together
from bgmatch_dask.service.cluster import connect


def _sizes(queue, seconds, threads=2, window=6):
    """Let every batch take its time, and return the sizes in the order of their start."""
    sizes, flying = [], queue.take(window, threads)
    while flying:
        batch = flying.pop(0)
        sizes.append(len(batch))
        queue.note(Done(batch, seconds * len(batch)))
        flying += queue.take(1, threads)
    return sizes


def test_short_units_go_together_and_the_last_ones_alone():
    sizes = _sizes(Queue(range(100)), 0.03)
    assert sum(sizes) == 100
    assert sizes[:6] == [1] * 6
    assert max(sizes) == 8
    assert sizes[-3:] == [1] * 3
    assert len(sizes) < 40


def test_long_units_go_alone():
    assert _sizes(Queue(range(30)), 0.5) == [1] * 30


def test_one_long_unit_is_enough_to_be_careful():
    queue = Queue(range(1000))
    for seconds in (0.01, 0.2, 0.01, 0.01):
        queue.note(Done((0,), seconds))
    assert {len(batch) for batch in queue.take(5, 2)} == {1}


def test_all_tasks_come_once_whatever_their_number():
    for total in range(30):
        queue, seen = Queue(range(total)), []
        while batches := queue.take(3, 2):
            for batch in batches:
                seen.extend(batch)
                queue.note(Done(batch, 0.0))
        assert seen == list(range(total))


def test_what_was_not_done_goes_next_and_alone():
    queue = Queue(range(100))
    for _ in range(4):
        queue.note(Done((0,), 0.001))
    ((first),) = queue.take(1, 1)
    assert len(first) == 50
    queue.again(first[48:])
    assert queue.take(2, 1) == [(48,), (49,)]


def _unless_three(number):
    if number == 3:
        raise ValueError("three")
    return number


def test_a_failure_ends_a_batch_and_is_raised_when_it_comes_first():
    work = Together(_unless_three)
    assert work((1, 2)).results == (1, 2)
    assert work((1, 2, 3, 4)).results == (1, 2)
    with pytest.raises(ValueError, match="three"):
        work((3, 4))


@pytest.fixture(scope="module")
def client():
    with connect(ClusterConfig(workers=1)) as client:
        yield client


def test_a_cluster_gives_every_result_once(client):
    assert sorted(DaskEngine(client).map(abs, range(-300, 0), "ingest")) == list(range(1, 301))


def _no_two_hundred(number):
    if number == 200:
        raise ValueError("two hundred")
    return number


def test_the_units_before_a_failure_count(client):
    found, results = [], DaskEngine(client).map(_no_two_hundred, range(300), "ingest")
    with pytest.raises(ValueError, match="two hundred"):
        list(map(found.append, results))
    assert found
    assert 200 not in found
    assert len(found) == len(set(found))
