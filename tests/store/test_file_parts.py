import pytest

from bgmatch_dask.store.file_parts import read_last, read_parts

DATA = bytes(range(256)) * 40


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a b"
    path.write_bytes(DATA)
    return path


def test_parts_come_one_after_the_other_in_the_same_memory(file):
    starts, ends = [5, 0, 9000, 10200], [4000, 0, 9001, 99999]
    parts = read_parts(file, starts, ends)
    first = next(parts)
    assert bytes(first) == DATA[5:4000]
    rest = [bytes(part) for part in parts]
    assert rest == [DATA[a:b] for a, b in zip(starts[1:], ends[1:], strict=True)]
    assert bytes(first[:1]) == DATA[10200:10201]


@pytest.mark.parametrize("size", [0, 7, len(DATA), len(DATA) + 9])
def test_the_last_bytes_are_all_of_a_shorter_file(file, size):
    assert read_last(file, size) == DATA[max(len(DATA) - size, 0) :]


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_last(tmp_path / "x", 4)
    with pytest.raises(FileNotFoundError):
        list(read_parts(tmp_path / "x", [0], [4]))
