"""A store on a real S3 server: the same answers and the same bytes as on a local disk."""

from __future__ import annotations

import json
import subprocess
import sys

import dask
import numpy as np
import obstore
import pytest
from obstore.exceptions import AlreadyExistsError
from obstore.store import from_url

from bgmatch_dask import open_tract
from bgmatch_dask.background.differences import Pixels
from bgmatch_dask.errors import BgmatchError, ConfigError, StoreError
from bgmatch_dask.pipeline.difference import StoredWarps
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.report.html import write_report
from bgmatch_dask.store import Location, TractSpec, create_tract, open_store
from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract
from tests.conftest import make_job
from tests.s3_server import ENVIRONMENT
from tests.store.test_planes import SPEC
from tests.tiny_store import GEOMETRY, VISITS


def code_of(call, *args, **kwargs):
    with pytest.raises(BgmatchError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def test_the_server_takes_create_only_puts_once(s3):
    store = from_url(f"{s3.make_bucket()}/t.zarr")
    obstore.put(store, "lock", b"1", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "lock", b"2", mode="create")
    assert bytes(obstore.get(store, "lock").bytes()) == b"1"


@pytest.fixture
def place(s3):
    return Location.of(f"{s3.make_bucket()}/a b/t.zarr")


def test_bytes_come_back_and_creation_is_exclusive(place):
    place.write_bytes("runs/a/x", b"\x00\xff", create=True)
    assert place.read_bytes("runs/a/x") == b"\x00\xff"
    assert code_of(place.write_bytes, "runs/a/x", b"2", create=True) == "object-exists"
    assert place.size("runs/a/x") == 2
    first = place.tag("runs/a/x")
    place.write_bytes("runs/a/x", b"3")
    assert place.tag("runs/a/x") != first
    place.write_bytes("runs/ab/y", b"")
    assert list(place.list("runs/a")) == ["runs/a/x"]
    place.delete("runs/a/x")
    place.delete("runs/a/x")
    assert place.tag("runs/a/x") is None
    assert code_of(place.read_bytes, "runs/a/x") == "object-missing"
    assert code_of(place.open_group) == "store-missing"


@pytest.mark.parametrize("size", [1 << 10, 4 << 20])
def test_parts_are_one_object(place, size):
    parts = [bytes([k]) * size for k in range(3)]
    place.write_parts("direct/x", parts)
    assert place.read_bytes("direct/x") == b"".join(parts)
    missing = Location.of("s3://no-such-bucket/t.zarr")
    assert code_of(missing.write_parts, "x", parts) in {"bucket-missing", "store-write"}


def test_a_bucket_that_is_not_there_is_named(s3):
    place = Location.of("s3://no-such-bucket/t.zarr")
    assert code_of(place.write_bytes, "x", b"1") == "bucket-missing"
    assert code_of(create_tract, place, SPEC) == "bucket-missing"
    assert code_of(lambda: list(place.list("runs"))) == "store-read"


def test_an_address_that_nobody_answers_is_a_store_error(s3):
    options = {"endpoint": "http://127.0.0.1:9", "max_retries": "0"}
    place = Location.of("s3://bucket/t.zarr", options)
    assert code_of(place.write_bytes, "x", b"1") == "store-write"
    assert code_of(place.tag, "x") == "store-read"
    assert code_of(place.open_group) == "store-read"


def test_options_travel_in_the_address(s3_server, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "NO_PROXY"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    options = {"AWS_ENDPOINT_URL": s3_server.endpoint, "region": "us-east-1", "allow_http": "true"}
    place = Location.of(f"{s3_server.make_bucket()}/t.zarr/", options)
    place.write_bytes("x", b"1")
    assert Location.of(place.url).read_bytes("x") == b"1"
    assert Location.of(place.url).url == place.url
    assert "?" not in place.child("runs/main/report.html")


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://b/t", {"aws_secret_access_key": "x"}),
        ("s3://b/t", {"session_token": "x"}),
        ("az://b/t", {"sas_key": "x"}),
        ("s3://b/t", {"endpoints": "x"}),
        ("s3://b/t?colour=red", {}),
        ("t.zarr", {"region": "x"}),
    ],
)
def test_options_that_are_unknown_or_secret_are_refused(url, options):
    with pytest.raises(ConfigError) as caught:
        Location.of(url, options)
    assert caught.value.code == "store-options"


def test_planes_and_sums_come_back(place):
    create_tract(place, SPEC)
    create_tract(place, SPEC)
    store = open_store(place.url)
    box = SPEC.geometry.patches.plane_box(1)
    values = np.arange(box.width * box.height, dtype=np.float32).reshape(box.shape)
    store.write_plane("image", 1, 1, values)
    np.testing.assert_array_equal(store.read("image", 1, 1, box), values)
    assert np.isnan(store.read("image", 0, 1, box)).all()


def test_a_warp_in_many_chunks_is_differenced_with_one_request_for_each_plane(
    place, tmp_path, monkeypatch
):
    spec = TractSpec(GEOMETRY, VISITS, "DN", bin_size=16, chunk=16)
    box, asked = GEOMETRY.patches.inner_box(3), []
    for location in (place, Location.of(str(tmp_path / "t.zarr"))):
        create_tract(location, spec)
        shape, rng = GEOMETRY.patches.plane_shape, np.random.default_rng(1)
        for index in range(3):
            open_store(location.url).write_plane(
                "image", index, 3, rng.normal(size=shape).astype("f4")
            )
            mask = rng.integers(0, 2, shape, dtype=np.int32)
            open_store(location.url).write_plane("mask", index, 3, mask)
    for name in ("get", "get_ranges", "head"):
        call = getattr(obstore, name)

        def counted(store, path, call=call, **options):
            asked.append(path)
            return call(store, path, **options)

        monkeypatch.setattr(obstore, name, counted)
    found = []
    for url in (place.url, location.url):
        asked.clear()
        reader = StoredWarps(open_store(url), 3, box)
        assert sum(1 for _ in reader.pieces(VISITS[0])) > 2
        asked.clear()
        pixels = [Pixels.read(reader, visit, box, 1) for visit in VISITS[:3]]
        # What was got from a server is not held when it was read.
        assert not reader.tables
        found.append(np.array([part.image for part in pixels]))
        planes = [n for n in asked if n.startswith(("direct/image/", "direct/mask/"))]
        assert len(planes) == (6 if url == place.url else 0)
    assert found[0].tobytes() == found[1].tobytes()
    assert np.isnan(found[0]).any()
    assert np.isfinite(found[0]).any()


@pytest.mark.parametrize("whole", [True, False])
def test_an_object_without_bytes_is_found_out(place, whole):
    """A range of an empty object is refused by servers; that must not be guessed from a text."""
    create_tract(place, SPEC)
    store = open_store(place.url)
    box = SPEC.geometry.patches.plane_box(1)
    store.write_plane("image", 1, 1, np.ones(box.shape, np.float32))
    place.write_bytes("direct/image/c/1/1/0/0", b"")
    part = box if whole else type(box)(box.x0, box.y0, 2, 2)
    assert code_of(store.read, "image", 1, 1, part) == "store-corrupt"


@pytest.fixture(scope="module")
def warps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    simulate_tract(folder, SimulationConfig(visits=3, patches=(2, 1), patch_size=128, border=16))
    return folder / "warps"


def test_a_whole_run_gives_the_bytes_of_a_local_one(warps, s3, tmp_path):
    """The name of the bucket, like an earlier port, holds a number that is also a status."""
    url = f"{s3.make_bucket('tract-416')}/404/tract.zarr"
    settings = ("background.bin_size=32", "match.write_warps=true")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bgmatch_dask", "run", str(warps), "--store", url),
            *("--workers", "2", "--json", "--quiet"),
            *(word for setting in settings for word in ("--set", setting)),
        ],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    remote = json.loads(done.stdout)
    local = run_tract(make_plan(make_job(warps, tmp_path / "tract.zarr", *settings)))
    assert remote["report"] == f"{url}/runs/main/report.html"
    assert [v["offset_median"] for v in remote["visits"]] == [
        v["offset_median"] for v in local["visits"]
    ]
    here, there = Location.of(str(tmp_path / "tract.zarr")), Location.of(url)
    write_report(here, "main")
    assert names_of(there) == names_of(here)
    products = [name for name in here.list("") if name.split("/")[0] not in {"runs", "receipts"}]
    assert len(products) > 50
    for name in products:
        assert there.read_bytes(name) == here.read_bytes(name), name
    assert b"</html>" in there.read_bytes("runs/main/report.html")
    # The workers of a cluster that other tests share do not know this server.
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(
            open_tract(url)["coadd"].values, open_tract(here.url)["coadd"].values
        )


def names_of(place: Location) -> list[str]:
    """Return all names but segments of receipts, which go by time, and the command's board."""
    return [name for name in place.list("") if "receipts/" not in name and "/board/" not in name]


def test_exports_come_out_of_a_remote_store(s3, tmp_path):
    from bgmatch_dask.report.export import export_fits
    from tests.tiny_store import RUN, build_tiny_store, fill_tiny_store

    there = fill_tiny_store(Location.of(f"{s3.make_bucket()}/t.zarr"))
    out = {}
    for name, place in (("s3", there), ("disk", build_tiny_store(tmp_path))):
        paths = export_fits(place, RUN, "coadd", tmp_path / name)
        out[name] = {path.name: path.read_bytes() for path in paths}
    assert out["s3"] == out["disk"]
    assert out["s3"]


def test_a_store_error_says_only_its_first_line(s3):
    place = Location.of("s3://no-such-bucket/t.zarr")
    with pytest.raises(StoreError) as caught:
        list(place.list("runs"))
    assert "\n" not in str(caught.value)
