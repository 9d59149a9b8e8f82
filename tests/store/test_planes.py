import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from bgmatch_dask.errors import GeometryError, StoreError
from bgmatch_dask.geometry import Box, PatchGrid, TractGeometry
from bgmatch_dask.maskplanes import NO_DATA
from bgmatch_dask.store import Location, TractSpec, TractStore, assert_aligned, create_tract
from bgmatch_dask.store.layout import PLANES, SUM_QUANTITIES

GRID = PatchGrid(3, 7, 40, 24, 4, 3, 2)
SPEC = TractSpec(TractGeometry("t", "r", (), GRID), ("a", "b"), "nJy", bin_size=16, chunk=16)


@pytest.fixture
def store(tmp_path):
    location = Location.of(str(tmp_path / "t.zarr"))
    create_tract(location, SPEC)
    return TractStore(location)


def _plane(name, seed=1):
    rng = np.random.default_rng(seed)
    dtype = PLANES[name][0]
    if dtype == "int32":
        return rng.integers(0, 2**18, GRID.plane_shape).astype(dtype)
    return rng.normal(300, 20, GRID.plane_shape).astype(dtype)


def _code(call, *args, **kwargs):
    with pytest.raises(StoreError) as caught:
        call(*args, **kwargs)
    return caught.value.code


@pytest.mark.parametrize("name", PLANES)
def test_a_plane_comes_back_bit_by_bit_and_by_box(store, name):
    values = _plane(name)
    if name != "mask":
        values[0, :5] = [np.nan, np.inf, -np.inf, -0.0, 1e-45]
    store.write_plane(name, 1, 4, values)
    whole = GRID.plane_box(4)
    assert store.read(name, 1, 4, whole).tobytes() == values.tobytes()
    box = Box(whole.x0 + 13, whole.y0 + 2, 20, 27)
    part = TractStore(store.location).read(name, 1, 4, box)
    np.testing.assert_array_equal(part, values[2:29, 13:33])
    assert part.dtype == values.dtype


@pytest.mark.parametrize("by_us", [True, False])
def test_around_the_box_of_a_warp_there_is_no_data(store, monkeypatch, by_us):
    if not by_us:
        monkeypatch.setattr(store, "codec", lambda _path: None)
    whole = GRID.plane_box(4)
    box = Box(whole.x0 + 3, whole.y0, whole.width - 3, whole.height - 5)
    for name in PLANES:
        store.write_plane(name, 1, 4, _plane(name))
        values = _plane(name)[: box.height, : box.width].copy()
        store.write_plane(name, 1, 4, values, box=box)
        read = TractStore(store.location).read(name, 1, 4, whole)
        np.testing.assert_array_equal(read[:-5, 3:], values)
        outside = np.ones(whole.shape, bool)
        outside[:-5, 3:] = False
        fill = read[outside]
        assert (fill == NO_DATA).all() if name == "mask" else np.isnan(fill).all()
    assert _code(store.write_plane, "mask", 1, 4, _plane("mask"), box=box) == "write-misaligned"


def test_what_was_not_written_is_no_data(store):
    box = GRID.inner_box(2)
    assert np.isnan(store.read("image", 0, 2, box)).all()
    assert np.isnan(store.read("variance", 0, 2, box)).all()
    assert (store.read("mask", 0, 2, box) == NO_DATA).all()


def test_one_unit_does_not_touch_another(store):
    store.write_plane("image", 0, 0, _plane("image", 1))
    store.write_plane("image", 0, 1, _plane("image", 2))
    store.write_plane("image", 1, 0, _plane("image", 3))
    box = GRID.plane_box(0)
    np.testing.assert_array_equal(store.read("image", 0, 0, box), _plane("image", 1))
    np.testing.assert_array_equal(store.read("image", 1, 0, box), _plane("image", 3))
    assert np.isnan(store.read("image", 1, 1, GRID.plane_box(1))).all()


def test_writing_the_same_again_gives_the_same_bytes(store):
    def files():
        root = store.location.local_path
        return {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}

    store.write_plane("image", 0, 0, _plane("image"))
    first = files()
    store.write_plane("image", 0, 0, _plane("image"))
    assert files() == first


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((31, 48), np.float32),
        np.zeros((48, 32), np.float32),
        np.zeros((1, 32, 48), np.float32),
        np.zeros((32, 48), np.float64),
    ],
)
def test_a_write_that_is_not_one_whole_plane_is_refused(store, values):
    assert _code(store.write_plane, "image", 0, 0, values) == "write-misaligned"
    assert np.isnan(store.read("image", 0, 0, GRID.plane_box(0))).all()


@pytest.mark.parametrize(("visit", "patch"), [(-1, 0), (0, -1), (2, 0), (0, 6)])
def test_a_write_beyond_the_axes_is_refused(store, visit, patch):
    assert _code(store.write_plane, "image", visit, patch, _plane("image")) == "write-misaligned"


def _array(shards):
    return zarr.create_array(
        MemoryStore(), shape=(2, 10, 12), chunks=(1, 2, 3), shards=shards, dtype="f4"
    )


@pytest.mark.parametrize(
    ("shards", "region", "good"),
    [
        ((1, 4, 6), (0, slice(0, 10), slice(0, 12)), True),
        ((1, 4, 6), (1, slice(4, 8), slice(6, 12)), True),
        ((1, 4, 6), (1, slice(8, 10), slice(0, 6)), True),
        ((1, 4, 6), (0, slice(2, 8), slice(0, 12)), False),
        ((1, 4, 6), (0, slice(0, 4), slice(0, 3)), False),
        ((1, 4, 6), (0, slice(0, 9), slice(0, 12)), False),
        ((2, 4, 6), (0, slice(0, 10), slice(0, 12)), False),
        ((1, 4, 6), (0, slice(4, 4), slice(0, 12)), False),
        ((1, 4, 6), (0, slice(0, 12), slice(0, 12)), False),
        (None, (0, slice(2, 4), slice(3, 6)), True),
        (None, (0, slice(2, 3), slice(3, 6)), False),
    ],
)
def test_only_whole_granules_may_be_written(shards, region, good):
    if good:
        assert_aligned(_array(shards), region)
    else:
        assert _code(assert_aligned, _array(shards), region) == "write-misaligned"


def _flip(path, position, bit):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("name", PLANES)
def test_a_flipped_bit_is_found_wherever_it_is(store, name):
    store.write_plane(name, 0, 0, _plane(name))
    (path,) = [
        p for p in (store.location.local_path / f"direct/{name}/c").rglob("*") if p.is_file()
    ]
    sound = path.read_bytes()
    rng = np.random.default_rng(5)
    # The first and the last byte (of the shard's index) are always among them.
    for position in [0, len(sound) - 1, *rng.integers(0, len(sound), 60)]:
        _flip(path, int(position), int(rng.integers(8)))
        fresh = TractStore(store.location)
        assert _code(fresh.read, name, 0, 0, GRID.plane_box(0)) == "store-corrupt"
        path.write_bytes(sound)
    assert store.read(name, 0, 0, GRID.plane_box(0)).tobytes() == _plane(name).tobytes()


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_shard_that_ends_early_is_found(store, keep):
    store.write_plane("image", 0, 0, _plane("image"))
    (path,) = [p for p in (store.location.local_path / "direct/image/c").rglob("*") if p.is_file()]
    path.write_bytes(path.read_bytes()[:keep])
    assert _code(store.read, "image", 0, 0, GRID.plane_box(0)) == "store-corrupt"


def test_a_box_must_lie_on_its_patch(store):
    with pytest.raises(GeometryError):
        store.read("image", 0, 0, GRID.plane_box(1))


def test_an_array_that_is_not_there_is_named(store):
    assert _code(store.array, "coadd/main/image") == "array-missing"
    assert _code(store.array, "direct") == "array-missing"


def test_sums_of_a_unit_come_back_cut_to_its_superpixels(store):
    for patch in range(GRID.n_patches):
        shape = SPEC.grid.window(GRID.inner_box(patch)).shape
        sums = np.random.default_rng(patch).normal(size=(SUM_QUANTITIES, *shape))
        store.write_unit_sums(1, patch, sums)
        assert store.read_unit_sums(1, patch).tobytes() == sums.tobytes()
    assert np.isnan(store.read_unit_sums(0, 0)).all()


def test_a_flipped_bit_in_sums_is_found(store):
    shape = SPEC.grid.window(GRID.inner_box(0)).shape
    store.write_unit_sums(0, 0, np.random.default_rng(0).normal(size=(SUM_QUANTITIES, *shape)))
    folder = store.location.local_path / "superpixels/direct/units/c"
    (path,) = [p for p in folder.rglob("*") if p.is_file()]
    _flip(path, path.stat().st_size // 2, 3)
    assert _code(store.read_unit_sums, 0, 0) == "store-corrupt"


def test_a_patch_plane_is_one_granule(store):
    from bgmatch_dask.store.layout import create_patch_array

    create_patch_array(store.group("coadd/main"), "nimage", ("int32", 0), SPEC)
    values = np.full(GRID.plane_shape, 7, np.int32)
    store.write_patch_plane("coadd/main/nimage", 5, values)
    assert (store.array("coadd/main/nimage")[5] == 7).all()
    assert (store.array("coadd/main/nimage")[4] == 0).all()
    code = _code(store.write_patch_plane, "coadd/main/nimage", 5, values[:-1])
    assert code == "write-misaligned"
