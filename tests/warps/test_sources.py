"""Inputs are named by files, folders, patterns, lists and URLs, or by another package's source."""

from __future__ import annotations

import functools
import http.server
import threading
from importlib.metadata import EntryPoint

import numpy as np
import obstore
import pytest
from obstore.store import from_url

from bgmatch_dask.config import load_config
from bgmatch_dask.errors import BgmatchError, InputError
from bgmatch_dask.geometry import Box, PatchGrid, TractGeometry
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.store import Location
from bgmatch_dask.warps import sources
from bgmatch_dask.warps.catalogue import InputFile, scan_inputs
from bgmatch_dask.warps.lsst import read_lsst_warp
from bgmatch_dask.warps.places import lasting_name, open_input, read_input, stat_input
from bgmatch_dask.warps.profile import load_profile
from bgmatch_dask.warps.simulation import SimulationConfig, simulate_tract
from bgmatch_dask.warps.source import read_unit
from bgmatch_dask.warps.sources import Found, expand, load_source
from tests.conftest import make_job

LSST = load_profile("lsst")


@pytest.fixture(scope="module")
def warps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    simulate_tract(folder, SimulationConfig(visits=3, patches=(2, 1), patch_size=128, border=16))
    return folder / "warps"


@pytest.fixture
def bucket(s3, warps):
    """The URL of a prefix with all warps, beside something else."""
    url = s3.make_bucket()
    store = from_url(url)
    for path in warps.iterdir():
        obstore.put(store, f"night 1/{path.name}", path.read_bytes())
    obstore.put(store, "night 1/notes.txt", b"clouds")
    obstore.put(store, "night 1/deeper/x.fits", b"")
    return f"{url}/night%201/"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def do_HEAD(self):
        if "expired" in self.path:
            self.send_error(403)
        else:
            super().do_HEAD()

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def web(warps):
    handler = functools.partial(_Quiet, directory=str(warps))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def code_of(call, *args):
    with pytest.raises(BgmatchError) as caught:
        call(*args)
    return caught.value.code


def test_a_list_names_files_patterns_and_urls(tmp_path):
    (tmp_path / "a.fits").touch()
    (tmp_path / "b1.fits").touch()
    listed = tmp_path / "list.txt"
    listed.write_text("# first night\na.fits\n\nb*.fits\n/abs/c.fits\nhttp://host/d.fits\n")
    assert list(expand([f"@{listed}"])) == [
        str(tmp_path / "a.fits"),
        str(tmp_path / "b1.fits"),
        "/abs/c.fits",
        "http://host/d.fits",
    ]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\0b", b"@other.txt"])
def test_a_list_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    assert code_of(list, expand([f"@{tmp_path}/list.txt"])) == "list-unreadable"


def test_a_list_that_is_not_there_is_refused(tmp_path):
    assert code_of(list, expand([f"@{tmp_path}/none.txt"])) == "list-unreadable"


def test_a_prefix_and_a_pattern_name_objects(bucket, warps):
    names = sorted(path.name for path in warps.iterdir())
    assert [n.rpartition("/")[2] for n in expand([bucket])] == names
    some = [n.rpartition("/")[2] for n in expand([f"{bucket}warp_*_p1.fits"])]
    assert some == [name for name in names if name.endswith("_p1.fits")]


def test_objects_are_read_in_part_and_whole(bucket, warps):
    path = min(warps.iterdir())
    name = f"{bucket}{path.name}"
    data = path.read_bytes()
    assert stat_input(name).size == len(data)
    assert stat_input(name).etag
    with open_input(name) as stream:
        stream.seek(-5000, 2)
        assert stream.read(10) == data[-5000:-4990]
        stream.seek(2880)
        assert stream.read() == data[2880:]
        assert stream.read(1) == b""
    assert read_input(name, len(data)) == data
    assert read_input(name, len(data) - 1) is None
    near = read_lsst_warp(path)
    far = read_lsst_warp(name)
    np.testing.assert_array_equal(near.image, far.image)


def test_a_run_on_objects_gives_the_bytes_of_a_run_on_files(bucket, warps, tmp_path):
    coadds = []
    for kind, inputs in (("far", bucket), ("near", str(warps))):
        job = make_job(inputs, tmp_path / f"{kind}.zarr", "background.bin_size=32")
        plan = make_plan(job)
        run_tract(plan)
        place = Location.of(str(tmp_path / f"{kind}.zarr"))
        names = [n for n in place.list("coadd") if "/c/" in n]
        coadds.append({name: place.read_bytes(name) for name in names})
    assert coadds[0] == coadds[1]
    assert coadds[0]


def test_the_plan_reads_only_the_headers_of_objects(bucket, monkeypatch):
    fetched = []
    whole = obstore.get_range

    def counted(store, key, *, start, length):
        fetched.append(length)
        return whole(store, key, start=start, length=length)

    monkeypatch.setattr(obstore, "get_range", counted)
    monkeypatch.setattr(obstore, "get", None)
    found = scan_inputs([f"{bucket}*.fits"], LSST, max_pixels=10**6)
    assert not found.rejected
    assert fetched


def test_files_of_a_web_server_are_read(web, warps):
    path = min(warps.iterdir())
    found = scan_inputs([f"{web}/{path.name}", f"{web}/gone.fits"], LSST, max_pixels=10**6)
    (file,) = found.files
    assert file.size == path.stat().st_size
    assert [r.code for r in found.rejected] == ["path-unreadable"]
    np.testing.assert_array_equal(read_lsst_warp(file.path).image, read_lsst_warp(path).image)


def test_a_web_file_beyond_the_limit_is_refused(web, warps):
    found = scan_inputs([f"{web}/{min(warps.iterdir()).name}"], LSST, max_pixels=1000)
    assert [r.code for r in found.rejected] == ["too-large"]


def test_a_server_that_is_silent_stops_the_job():
    call = functools.partial(scan_inputs, profile=LSST, max_pixels=10**6)
    assert code_of(call, ["http://127.0.0.1:9/x.fits"]) == "input-unreachable"


def test_a_signed_address_that_expired_is_no_bad_file(web, warps):
    name = f"{web}/{min(warps.iterdir()).name}"
    call = functools.partial(scan_inputs, profile=LSST, max_pixels=10**6)
    assert code_of(call, [f"{name}?signature=expired"]) == "input-unreachable"
    (file,) = call([f"{name}?signature=fresh"]).files
    assert lasting_name(file.path) == name


class OneFile:
    """A source of another package."""

    def __init__(self, config):
        self.path = config.paths[0]

    def find(self):
        return [Found(self.path, visit="77", band="z", facts=(("exposure_time", 5.0),))]


def test_another_package_can_register_a_source(warps, monkeypatch):
    point = EntryPoint("mine", f"{__name__}:OneFile", sources.ENTRY_POINTS)
    monkeypatch.setattr(sources, "entry_points", lambda group: [point])
    values = {"inputs": {"paths": [str(min(warps.iterdir()))], "source": "mine"}}
    source = load_source(load_config(values=values).inputs)
    (file,) = scan_inputs(source, LSST, max_pixels=10**6).files
    assert (file.visit, file.band) == ("77", "z")
    assert dict(file.facts)["exposure_time"] == 5.0


def test_a_source_that_nobody_registered_is_refused():
    config = load_config(values={"inputs": {"source": "nobody"}}).inputs
    assert code_of(load_source, config) == "source-unknown"


def test_a_package_that_is_missing_is_named(monkeypatch):
    point = EntryPoint("mine", "no_such_package:Thing", sources.ENTRY_POINTS)
    monkeypatch.setattr(sources, "entry_points", lambda group: [point])
    config = load_config(values={"inputs": {"source": "mine"}}).inputs
    assert code_of(load_source, config) == "source-missing"


def test_an_unreachable_input_is_no_bad_file():
    box = Box(0, 0, 32, 32)
    file = InputFile("http://127.0.0.1:9/x.fits", "1", "i", 1, 1, box.shape, box, ())
    geometry = TractGeometry("t", "i", (), PatchGrid(0, 0, 32, 32, 0, 1, 1))
    with pytest.raises(InputError) as caught:
        read_unit([file], LSST, geometry, 0, max_pixels=10**6)
    assert caught.value.code == "input-unreachable"
