import pickle

import pytest

from bgmatch_dask.errors import StoreError
from bgmatch_dask.store import Location, normalise_url
from bgmatch_dask.store.traffic import recorded


def _code(call, *args, **kwargs):
    with pytest.raises(StoreError) as caught:
        call(*args, **kwargs)
    return caught.value.code


@pytest.fixture
def place(tmp_path):
    return Location.of(str(tmp_path / "näme with space" / "t.zarr"))


def test_a_path_and_its_url_are_one_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    urls = {
        normalise_url(text)
        for text in (
            "a b.zarr",
            "./a b.zarr",
            str(tmp_path / "a b.zarr"),
            normalise_url("a b.zarr"),
        )
    }
    assert urls == {(tmp_path / "a b.zarr").as_uri()}


@pytest.mark.parametrize("url", ["s3://bucket/t.zarr", "gs://b/t", "memory:///x"])
def test_remote_urls_stay_as_they_are(url):
    assert normalise_url(url + "/") == url
    assert Location.of(url).local_path is None
    assert Location.of(url).child("a") == f"{url}/a"


def test_an_unknown_scheme_is_refused():
    assert _code(normalise_url, "ftp://host/t") == "store-url"


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Location.of("~/t.zarr").local_path == tmp_path / "t.zarr"


def test_bytes_and_json_come_back(place):
    place.write_bytes("runs/a/x.bin", b"\x00\xff")
    assert place.read_bytes("runs/a/x.bin") == b"\x00\xff"
    place.write_json("runs/a/y.json", {"b": [1, None], "a": "ü"})
    assert place.read_json("runs/a/y.json") == {"a": "ü", "b": [1, None]}
    assert place.exists("runs/a/y.json")
    assert (place.local_path / "runs/a/x.bin").is_file()


def test_parts_are_one_object(place):
    parts = [bytes([k]) * size for k, size in enumerate((3, 4 << 20, 0, 5))]
    with recorded() as traffic:
        place.write_parts("direct/x", parts)
        place.write_bytes("direct/y", b"".join(parts))
    assert place.read_bytes("direct/x") == b"".join(parts)
    one, other = traffic.written
    assert (one.size, one.checksum) == (other.size, other.checksum)
    place.write_parts("direct/x", [b"1", b"2"])
    assert place.read_bytes("direct/x") == b"12"
    assert sorted(p.name for p in (place.local_path / "direct").iterdir()) == ["x", "y"]


def test_what_others_left_or_are_writing_is_not_touched(place):
    folder = place.local_path / "direct"
    folder.mkdir(parents=True)
    (folder / "x#1").write_bytes(b"half")
    place.write_parts("direct/x", [b"1", b"2"])
    assert place.read_bytes("direct/x") == b"12"
    assert (folder / "x#1").read_bytes() == b"half"
    assert sorted(p.name for p in folder.iterdir()) == ["x", "x#1"]


def test_a_write_that_is_refused_leaves_nothing(place):
    (place.local_path / "direct/x").mkdir(parents=True)
    assert _code(place.write_parts, "direct/x", [b"1"]) == "store-write"
    assert [p.name for p in (place.local_path / "direct").iterdir()] == ["x"]
    place.write_bytes("file", b"1")
    assert _code(place.write_parts, "file/x", [b"1"]) == "store-write"


def test_writing_again_replaces_unless_it_must_create(place):
    place.write_bytes("lock", b"1", create=True)
    assert _code(place.write_bytes, "lock", b"2", create=True) == "object-exists"
    assert place.read_bytes("lock") == b"1"
    place.write_bytes("lock", b"3")
    assert place.read_bytes("lock") == b"3"


def test_a_tag_tells_versions_apart(place):
    assert place.tag("x") is None
    place.write_bytes("x", b"1")
    first = place.tag("x")
    assert place.tag("x") == first
    place.write_bytes("x", b"12")
    assert place.tag("x") != first


def test_listing_goes_by_whole_names_and_is_sorted(place):
    for name in ("a/match/2", "a/match/10", "a/match/1", "a/matched/1", "ab/match/1"):
        place.write_bytes(name, b"")
    assert list(place.list("a/match")) == ["a/match/1", "a/match/10", "a/match/2"]
    assert list(place.list("nowhere")) == []


def test_deleting_is_idempotent(place):
    place.write_bytes("x", b"1")
    place.delete("x")
    place.delete("x")
    assert not place.exists("x")
    assert _code(place.read_bytes, "x") == "object-missing"


def test_looking_at_a_place_does_not_make_it(tmp_path):
    place = Location.of(str(tmp_path / "typo.zarr"))
    assert not place.exists("zarr.json")
    assert place.tag("x") is None
    assert list(place.list("runs")) == []
    place.delete("x")
    assert _code(place.read_bytes, "x") == "object-missing"
    assert _code(place.open_group) == "store-missing"
    assert not place.local_path.exists()


def test_a_folder_without_a_tract_is_no_store(tmp_path):
    assert _code(Location.of(str(tmp_path)).open_group) == "store-missing"


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    place = Location.of(str(tmp_path / "file"))
    assert _code(place.write_bytes, "x", b"1") == "store-unreachable"
    assert _code(place.open_group) == "store-missing"
    below = Location.of(str(tmp_path / "file" / "t.zarr"))
    assert _code(below.write_bytes, "x", b"1") == "store-unreachable"


def test_what_the_place_refuses_is_a_store_error(place):
    place.write_bytes("folder/x", b"1")
    assert _code(place.write_bytes, "folder", b"2") == "store-write"
    assert _code(place.read_bytes, "folder") in {"object-missing", "store-read"}


def test_a_location_is_small_and_travels(place):
    place.write_bytes("x", b"1")
    blob = pickle.dumps(place)
    assert len(blob) < 500
    assert pickle.loads(blob) == place
