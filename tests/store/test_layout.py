import shutil

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.errors import StoreError
from bgmatch_dask.geometry import PatchGrid, TractGeometry
from bgmatch_dask.maskplanes import MASK_PLANES, NO_DATA
from bgmatch_dask.store import Location, TractSpec, create_tract, open_store, read_spec
from bgmatch_dask.store.layout import (
    SCHEMA,
    SUM_QUANTITIES,
    chunk_length,
    create_patch_array,
    create_superpixel_array,
    restore_tract,
    spec_to_json,
    write_superpixel_array,
)

CARDS = (("CTYPE1", "RA---TAN"), ("CRVAL1", 150.1), ("CDELT1", -5.555555555555556e-05), ("N", 2))


def _spec(**changes):
    grid = PatchGrid(3, 7, 40, 24, 4, 3, 2)
    values = {
        "geometry": TractGeometry("9813", "r", CARDS, grid),
        "visits": ("903334", "1214", "a/../b"),
        "unit": "nJy",
        "bin_size": 16,
        "chunk": 16,
    }
    return TractSpec(**(values | changes))


@pytest.fixture
def place(tmp_path):
    return Location.of(str(tmp_path / "t.zarr"))


def _code(call, *args):
    with pytest.raises(StoreError) as caught:
        call(*args)
    return caught.value.code


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 20000), st.integers(16, 3000))
def test_a_chunk_divides_the_plane_and_is_near_its_target(length, target):
    chunk = chunk_length(length, target)
    assert length % chunk == 0
    assert chunk == length or target / 4 <= chunk <= target * 4


@pytest.mark.parametrize(
    ("length", "chunk"), [(4200, 1050), (3400, 850), (4000, 1000), (1000, 1000), (4201, 4201)]
)
def test_chunks_of_usual_planes(length, chunk):
    assert chunk_length(length, 1000) == chunk


def test_what_was_fixed_is_read_back(place):
    create_tract(place, _spec())
    assert read_spec(place) == _spec()
    assert open_store(place.url).spec.visit_index("1214") == 1


def test_the_layout_is_that_of_the_schema(place):
    create_tract(place, _spec())
    root = place.open_group()
    assert root.attrs["bgmatch_schema"] == SCHEMA
    assert root.attrs["mask_planes"] == dict(MASK_PLANES)
    for name, dtype in (("image", "f4"), ("variance", "f4"), ("mask", "i4")):
        array = root[f"direct/{name}"]
        assert array.shape == (3, 6, 32, 48)
        assert array.shards == (1, 1, 32, 48)
        assert array.chunks == (1, 1, 16, 16)
        assert array.dtype == np.dtype(dtype)
        assert array.metadata.dimension_names == ("visit", "patch", "y", "x")
    assert np.isnan(root["direct/image"].fill_value)
    assert root["direct/mask"].fill_value == NO_DATA
    units = root["superpixels/direct/units"]
    # Inner boxes of 40 x 24 pixels touch at most 3 x 2 superpixels of 16 pixels here.
    assert units.shape == (3, 6, SUM_QUANTITIES, 2, 3)
    assert units.chunks[:3] == (1, 1, SUM_QUANTITIES)


def test_making_the_same_store_again_keeps_its_pixels(place):
    create_tract(place, _spec())
    values = np.ones((32, 48), np.float32)
    open_store(place.url).write_plane("image", 0, 0, values)
    create_tract(place, _spec())
    assert (place.open_group()["direct/image"][0, 0] == 1).all()


@pytest.mark.parametrize("change", [{"chunk": 24}, {"bin_size": 8}, {"unit": "adu"}])
def test_another_tract_is_not_overwritten(place, change):
    create_tract(place, _spec())
    assert _code(create_tract, place, _spec(**change)) == "store-exists"
    assert read_spec(place) == _spec()


@pytest.mark.parametrize("steps", range(8))
def test_a_store_whose_making_was_interrupted_is_made_anew(place, monkeypatch, steps):
    made = []
    whole = Location.write_bytes

    def killed(self, name, data, **options):
        if len(made) == steps:
            raise KeyboardInterrupt
        made.append(name)
        whole(self, name, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            create_tract(place, _spec())
    assert _code(read_spec, place) == "store-missing"
    create_tract(place, _spec(bin_size=8))
    assert read_spec(place).bin_size == 8
    assert place.open_group()["superpixels/direct/units"].shape[-2:] == (3, 5)


def test_new_visits_join_the_end_of_the_axis(place):
    create_tract(place, _spec())
    open_store(place.url).write_plane("image", 2, 5, np.full((32, 48), 7, np.float32))
    spec = create_tract(place, _spec(visits=("1214", "0100")))
    assert spec.visits == ("903334", "1214", "a/../b", "0100")
    assert read_spec(place) == spec
    image = open_store(place.url).array("direct/image")
    assert image.shape == (4, 6, 32, 48)
    assert (image[2, 5] == 7).all()
    assert create_tract(place, _spec(visits=())) == spec


def test_another_superpixel_size_needs_to_be_asked_for(place):
    create_tract(place, _spec())
    create_tract(place, _spec(bin_size=8), rebin=True)
    assert open_store(place.url).spec.bin_size == 8
    assert open_store(place.url).array("superpixels/direct/units").shape[-2:] == (3, 5)


@pytest.mark.parametrize("name", ["zarr.json", "direct/image/zarr.json", "superpixels/zarr.json"])
def test_damaged_metadata_are_restored_to_the_byte(place, name):
    spec = create_tract(place, _spec())
    before = {n: place.read_bytes(n) for n in place.list("")}
    place.write_bytes(name, before[name][:-9])
    if name == "zarr.json":
        assert _code(read_spec, place) == "store-corrupt"
    restore_tract(place, spec_to_json(spec))
    assert {n: place.read_bytes(n) for n in place.list("")} == before


def test_a_foreign_zarr_group_is_left_alone(place):
    root = zarr.create_group(place.zarr_store(), attributes={"mine": 1})
    root.create_array("direct", shape=(3,), dtype="f4")
    assert _code(create_tract, place, _spec()) == "store-incomplete"
    assert place.open_group()["direct"].shape == (3,)


def test_another_schema_is_refused(place):
    create_tract(place, _spec())
    place.open_group().attrs["bgmatch_schema"] = SCHEMA + 1
    assert _code(read_spec, place) == "store-schema"


def test_a_missing_store_is_refused(place):
    assert _code(read_spec, place) == "store-missing"


def test_an_unknown_visit_is_refused_with_the_known_ones(place):
    with pytest.raises(StoreError, match="903334") as caught:
        _spec().visit_index("7")
    assert caught.value.code == "visit-unknown"


def test_labels_are_text_and_name_no_object(place):
    create_tract(place, _spec(visits=("../../evil", "a b", "é\n[red]", "zarr.json")))
    assert read_spec(place).visits == ("../../evil", "a b", "é\n[red]", "zarr.json")
    assert sorted(p.name for p in place.local_path.parent.iterdir()) == ["t.zarr"]
    assert sorted(p.name for p in place.local_path.iterdir()) == [
        "direct",
        "superpixels",
        "zarr.json",
    ]


def test_arrays_of_results_have_one_granule_per_patch_or_visit(place):
    create_tract(place, _spec())
    root = place.open_group()
    coadd = create_patch_array(root.create_group("coadd"), "nimage", ("int32", 0), _spec())
    assert (coadd.shape, coadd.shards) == ((6, 32, 48), (1, 32, 48))
    offsets = create_superpixel_array(root.create_group("match"), "mean", "f8", np.nan, _spec())
    assert (offsets.shape, offsets.chunks) == ((3, 3, 8), (1, 3, 8))
    offsets[0] = 1.0
    again = create_superpixel_array(root["match"], "mean", "f8", np.nan, _spec())
    assert np.isnan(again[0]).all()


def test_a_store_that_was_moved_opens_at_its_new_place(place, tmp_path):
    create_tract(place, _spec())
    shutil.move(place.local_path, tmp_path / "moved.zarr")
    assert read_spec(Location.of(str(tmp_path / "moved.zarr"))) == _spec()


def test_planes_on_superpixels_go_to_their_visits(tmp_path):
    visits = tuple(str(v) for v in range(70))
    spec = _spec(visits=visits)
    group = zarr.open_group(tmp_path / "s.zarr", mode="w")
    planes = {v: np.full(spec.grid.shape, float(v)) for v in (0, 31, 32, 69)}
    write_superpixel_array(group, "mean", ("float64", np.nan), planes.items(), spec)
    found = group["mean"][:]
    twin = np.full(found.shape, np.nan)
    for visit, plane in planes.items():
        twin[visit] = plane
    np.testing.assert_array_equal(found, twin)
    chunks = {p.name for p in (tmp_path / "s.zarr" / "mean" / "c").iterdir()}
    assert chunks == {"0", "31", "32", "69"}
