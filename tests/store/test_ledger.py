import pickle

import pytest

from bgmatch_dask.errors import Rejected, StoreError
from bgmatch_dask.store import Ledger, Location, Receipt


@pytest.fixture
def place(tmp_path):
    return Location.of(str(tmp_path / "t.zarr"))


def _receipt(unit, digest="d", **figures):
    return Receipt("coadd", unit, digest, 1.5, figures)


def test_a_receipt_survives_storage_and_the_trip():
    rejected = (Rejected("fits-truncated", "ends\nearly", "ä.fits"), Rejected("b", "c", "d"))
    receipt = Receipt("ingest", "1214/3", "d", 0.25, {"n": 3, "sky": 2.5, "x": None}, rejected)
    assert Receipt.from_json(receipt.to_json()) == receipt
    assert pickle.loads(pickle.dumps(receipt)) == receipt


@pytest.mark.parametrize("stage", ["ingest", "coadd"])
def test_receipts_come_back(place, stage):
    rejected = (Rejected("fits-truncated", "ends\nearly \u2028", "a\r.fits"),)
    receipts = [Receipt(stage, f"{i}", "d", 0.1, {"n": i}, rejected) for i in range(3)]
    ledger = Ledger(place, "main")
    assert ledger.read(stage) == {}
    ledger.append(stage, receipts)
    assert Ledger(place, "main").read(stage) == {r.unit: r for r in receipts}


def test_the_newest_receipt_of_a_unit_counts(place):
    ledger = Ledger(place, "main")
    for number in range(12):
        ledger.append("coadd", [_receipt("0", f"digest {number}"), _receipt(f"u{number}")])
    found = ledger.read("coadd")
    assert found["0"].digest == "digest 11"
    assert len(found) == 13


def test_runs_and_stages_are_apart(place):
    for run in ("main", "main2"):
        for stage in ("match", "match2"):
            Ledger(place, run).append(stage, [_receipt(f"{run} {stage}")])
    assert list(Ledger(place, "main").read("match")) == ["main match"]
    Ledger(place, "main").clear("match")
    assert Ledger(place, "main").read("match") == {}
    assert list(Ledger(place, "main").read("match2")) == ["main match2"]
    assert list(Ledger(place, "main2").read("match")) == ["main2 match"]


def test_clearing_makes_room_for_new_receipts(place):
    ledger = Ledger(place, "main")
    ledger.append("coadd", [_receipt("0")])
    ledger.clear("coadd")
    ledger.clear("coadd")
    ledger.append("coadd", [_receipt("1")])
    assert list(ledger.read("coadd")) == ["1"]


def test_nothing_to_add_writes_nothing(place):
    Ledger(place, "main").append("coadd", [])
    assert list(place.list("runs")) == []


def test_a_spoilt_segment_is_named(place):
    ledger = Ledger(place, "main")
    ledger.append("coadd", [_receipt("0")])
    (name,) = place.list("runs")
    place.write_bytes(name, b'{"stage": "coadd"')
    with pytest.raises(StoreError, match=name) as caught:
        ledger.read("coadd")
    assert caught.value.code == "receipts-corrupt"
