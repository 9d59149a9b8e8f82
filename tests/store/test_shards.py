import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from bgmatch_dask.store.layout import codecs
from bgmatch_dask.store.shards import ChunkCodec, ShardCodec

KEY = "c/1/0/0"
WINDOWS = [(0, 48, 0, 60), (0, 16, 0, 60), (5, 40, 7, 55), (17, 18, 59, 60), (16, 32, 20, 40)]


def _array(made, dtype, fill, chunks=(16, 20), compressors=None):
    return zarr.create_array(
        MemoryStore(made),
        shape=(2, 48, 60),
        shards=(1, 48, 60),
        chunks=(1, *chunks),
        dtype=dtype,
        fill_value=fill,
        compressors=compressors or codecs(),
    )


def _values(dtype, fill):
    values = np.random.default_rng(3).normal(100.0, 9.0, (48, 60)).astype(dtype)
    values[16:32, 20:40] = fill
    values[40:, 50:] = fill
    return values


@pytest.mark.parametrize("chunks", [(16, 20), (48, 60), (6, 60)])
@pytest.mark.parametrize(("dtype", "fill"), [("f4", np.nan), ("i4", 256), ("f8", 0.0), ("u1", 0)])
def test_zarr_reads_what_is_encoded_and_the_other_way_round(dtype, fill, chunks):
    made = {}
    array, values = _array(made, dtype, fill, chunks), _values(dtype, fill)
    codec = ShardCodec.of(array)
    array[1] = values
    by_zarr = made[KEY].to_bytes()
    ours = b"".join(codec.encode(values))
    assert len(ours) == len(by_zarr)
    for data in (by_zarr, ours):
        for y0, y1, x0, x1 in WINDOWS:
            window = (slice(y0, y1), slice(x0, x1))
            np.testing.assert_array_equal(codec.decode(data, window), values[window])
    made[KEY] = made[KEY].from_bytes(ours)
    np.testing.assert_array_equal(array[1], values)


@pytest.mark.parametrize("chunks", [(16, 20), (48, 60), (6, 60)])
@pytest.mark.parametrize(("dtype", "fill"), [("f4", np.nan), ("i4", 256)])
@pytest.mark.parametrize("window", [*WINDOWS, (47, 48, 59, 60), (16, 32, 20, 60)])
def test_a_part_is_encoded_as_the_plane_with_fill_around_it(dtype, fill, chunks, window):
    codec = ShardCodec.of(_array({}, dtype, fill, chunks))
    y0, y1, x0, x1 = window
    part = slice(y0, y1), slice(x0, x1)
    whole = np.full((48, 60), fill, dtype)
    whole[part] = _values(dtype, fill)[part]
    parts, expected = codec.encode(whole[part].copy(), part), codec.encode(whole)
    assert parts == expected


def test_only_the_chunks_of_a_window_are_asked_for():
    codec, values = ShardCodec.of(_array({}, "f4", np.nan)), _values("f4", np.nan)
    data, asked = b"".join(codec.encode(values)), []

    def ranges(starts, ends):
        asked.extend(zip(starts, ends, strict=True))
        return [data[start:end] for start, end in asked]

    window = (slice(0, 16), slice(0, 40))
    assert not codec.needs_all(window)
    found = codec.decode_ranges(data[-codec.index_size :], ranges, window)
    np.testing.assert_array_equal(found, values[window])
    assert len(asked) == 2


def test_a_plane_without_values_is_no_object():
    codec = ShardCodec.of(_array({}, "f4", np.nan))
    assert codec.encode(np.full((48, 60), np.nan, "f4")) is None
    assert codec.needs_all((slice(0, 48), slice(0, 60)))


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_and_every_cut_is_found(bit):
    codec = ShardCodec.of(_array({}, "f4", np.nan))
    data = b"".join(codec.encode(_values("f4", np.nan)))
    window = (slice(0, 48), slice(0, 60))
    for place in range(bit, len(data), 37):
        broken = bytearray(data)
        broken[place] ^= 1 << bit
        with pytest.raises(ValueError, match="does not match"):
            codec.decode(bytes(broken), window)
    for size in (0, 3, codec.index_size - 1, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError, match=r"does not match|bytes"):
            codec.decode(data[:size], window)


def test_shards_of_another_shuffle_are_read():
    bits = [BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()]
    made, values = {}, _values("f4", np.nan)
    array = _array(made, "f4", np.nan, compressors=bits)
    array[1] = values
    found = ShardCodec.of(array).decode(made[KEY].to_bytes(), (slice(0, 48), slice(0, 60)))
    np.testing.assert_array_equal(found, values)


def test_arrays_of_another_make_are_left_to_zarr():
    assert ShardCodec.of(_array({}, "f4", 0, compressors=[ZstdCodec(), Crc32cCodec()])) is None
    assert ShardCodec.of(_array({}, "f4", 0, compressors=[BloscCodec()])) is None
    assert ShardCodec.of(zarr.create_array(MemoryStore(), shape=(4, 4), dtype="f4")) is None
    shards = {"shape": (2, 8, 8), "shards": (2, 8, 8), "chunks": (1, 4, 4), "dtype": "f4"}
    assert ShardCodec.of(zarr.create_array(MemoryStore(), **shards)) is None


def _chunks(made, fill=np.nan):
    return zarr.create_array(
        MemoryStore(made),
        shape=(3, 2, 8, 5, 6),
        chunks=(1, 1, 8, 5, 6),
        dtype="f8",
        fill_value=fill,
        compressors=codecs(),
    )


def test_small_arrays_are_chunks_that_zarr_reads_and_the_other_way_round():
    made = {}
    array, values = _chunks(made), np.random.default_rng(1).normal(size=(8, 5, 6))
    values[:, 4:] = np.nan
    codec = ChunkCodec.of(array, 2)
    array[1, 1] = values
    (key,) = (name for name in made if name.startswith("c/1/1/"))
    np.testing.assert_array_equal(codec.decode(made[key].to_bytes()), values)
    ours = codec.encode(values)
    made[key] = made[key].from_bytes(ours)
    np.testing.assert_array_equal(array[1, 1], values)
    assert codec.encode(np.full((8, 5, 6), np.nan)) is None
    for place in range(0, len(ours), 11):
        broken = bytearray(ours)
        broken[place] ^= 4
        with pytest.raises(ValueError, match="does not match"):
            codec.decode(bytes(broken))
    with pytest.raises(ValueError, match="bytes"):
        codec.decode(b"")
    assert ChunkCodec.of(array, 3) is None
