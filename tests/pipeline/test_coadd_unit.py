"""The unit that stacks a patch goes through chunks and some visits at a time; neither shows."""

from __future__ import annotations

import numpy as np
import pytest

from bgmatch_dask.background.offsets import render, render_variance
from bgmatch_dask.coadd.layout import COADD_PLANES
from bgmatch_dask.coadd.stack import TOGETHER, Stack, WeightedWarp
from bgmatch_dask.maskplanes import NO_DATA
from bgmatch_dask.pipeline import coadd_unit
from bgmatch_dask.pipeline.coadd_unit import CoaddTask, coadd_patch
from bgmatch_dask.pipeline.results import load_offset
from bgmatch_dask.pipeline.thumbnails import block_sums, read_thumbnail, thumbnail_grid
from bgmatch_dask.pipeline.unmatched import UnmatchedCoadd
from bgmatch_dask.store import TractStore
from tests.tiny_store import GEOMETRY, MATCHED, REFERENCE, RUN, build_tiny_store

PATCH = 1


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return TractStore(build_tiny_store(tmp_path_factory.mktemp("unit"), write_unmatched=True))


def _expected(store, weights, *, shifted, dropped=()):
    """The planes of the whole patch at once, one visit after the other."""
    box = GEOMETRY.patches.plane_box(PATCH)
    stack = Stack.empty(box.shape)
    for visit, weight in weights:
        if visit in dropped:
            continue
        index = store.spec.visit_index(visit)
        image, variance, mask = (
            store.read(plane, index, PATCH, box) for plane in ("image", "variance", "mask")
        )
        if shifted and visit != REFERENCE:
            offset = load_offset(store, RUN, visit)
            image = image + render(offset, box)
            variance = variance + render_variance(offset, box)
        stack.add([WeightedWarp(image, variance, mask, weight)], NO_DATA)
    return stack.planes()


@pytest.mark.parametrize("write_unmatched", [False, True])
@pytest.mark.parametrize("count", [0, 3, 4, 5, 9])
@pytest.mark.parametrize("dropped", [(), (MATCHED,)])
def test_chunks_and_groups_of_visits_give_the_bytes_of_whole_planes(
    store, count, write_unmatched, dropped
):
    # A visit may come again with another weight: the tract has two on this patch.
    visits = (REFERENCE, MATCHED) * 5
    weights = tuple((visit, 1.0 / (3 + i)) for i, visit in enumerate(visits[:count]))
    task = CoaddTask(
        url=store.location.url,
        run=RUN,
        patch=PATCH,
        weights=weights,
        reference=REFERENCE,
        dropped=dropped,
        bad_bits=NO_DATA,
        write_unmatched=write_unmatched,
        digest="",
    )
    receipt = coadd_patch(task)
    assert store.array(f"coadd/{RUN}_matched/image").chunks[-2:] != GEOMETRY.patches.plane_shape
    planes = {
        "matched": _expected(store, weights, shifted=True, dropped=dropped),
        "unmatched": _expected(store, weights, shifted=False),
    }
    box, inner = GEOMETRY.patches.plane_box(PATCH), GEOMETRY.patches.inner_box(PATCH)
    coadd = UnmatchedCoadd.of(store.location, RUN)
    for name in COADD_PLANES:
        found = store.read_plane(f"coadd/{RUN}_matched/{name}", (PATCH,))
        assert found.tobytes() == planes["matched"][name].tobytes()
        assert coadd.read(name, PATCH, box).tobytes() == planes["unmatched"][name].tobytes()
        part = coadd.read(name, PATCH, inner)
        np.testing.assert_array_equal(part, planes["unmatched"][name][inner.slices_in(box)])
    assert receipt.figures["n_pixels"] == np.count_nonzero(planes["matched"]["nimage"])
    assert (PATCH in coadd.patches) == (count > 0)
    for name, sums in read_thumbnail(store, RUN, PATCH).items():
        image = planes[name]["image"][inner.slices_in(box)]
        expected = block_sums(image, thumbnail_grid(GEOMETRY), inner)
        np.testing.assert_allclose(sums, expected, rtol=1e-6)


def test_the_memory_of_warps_does_not_grow_with_their_number(store, monkeypatch):
    held = []

    class Noted(coadd_unit._Warps):
        def __init__(self, *args):
            super().__init__(*args)
            held.append(sum(plane.nbytes for plane in (*self._held, self._masks)))

    monkeypatch.setattr(coadd_unit, "_Warps", Noted)
    for count in (3, 9, 50, 2 * TOGETHER):
        weights = ((REFERENCE, 1.0),) * count
        coadd_patch(
            CoaddTask(store.location.url, RUN, PATCH, weights, REFERENCE, (), NO_DATA, False, "")
        )
    assert held[0] == held[1] == held[2] > 0
    # Twice as many where no sums of a whole chunk are held, which are larger than a chunk of four.
    assert held[3] == 2 * held[2]
