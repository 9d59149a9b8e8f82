import mmap

import numpy as np
import pytest

from bgmatch_dask.numerics.large_pages import zeros_in_large_pages

LARGE = 2 << 20


@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (1500, 1501), (2, 700, 801)])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
def test_arrays_are_those_of_numpy(shape, dtype):
    first, second = (zeros_in_large_pages(shape, dtype) for _ in range(2))
    assert (first.shape, first.dtype) == (shape, np.dtype(dtype))
    assert first.flags.c_contiguous
    assert first.flags.writeable
    assert not first.any()
    first[...] = 7
    assert not second.any()


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="no large pages here")
def test_large_arrays_begin_with_a_large_page():
    array = zeros_in_large_pages((1024, 1024), "f8")
    assert array.ctypes.data % LARGE == 0
    part = array[3:]
    del array
    part[...] = 1.0
    assert part.sum() == part.size


def test_systems_without_large_pages_get_plain_arrays(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    array = zeros_in_large_pages((1024, 1024), "f8")
    array[...] = 2.0
    assert array.base is None
