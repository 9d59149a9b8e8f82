import pickle

import pytest

from bgmatch_dask.errors import Rejected, StoreError
from bgmatch_dask.store import Ledger, Location, Receipt
from bgmatch_dask.store.receipt import Basis
from bgmatch_dask.store.traffic import Written, recorded


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
        Ledger(place, "main").read("coadd")
    assert caught.value.code == "receipts-corrupt"


def _segments(place):
    return list(place.list("runs/main/receipts/coadd"))


def test_any_flipped_bit_of_a_segment_is_found(place):
    Ledger(place, "main").append("coadd", [_receipt(f"{i}", n=1.5 * i) for i in range(3)])
    (name,) = _segments(place)
    data = place.read_bytes(name)
    for position in range(0, len(data), 7):
        spoilt = bytearray(data)
        spoilt[position] ^= 1 << position % 8
        place.write_bytes(name, bytes(spoilt))
        with pytest.raises(StoreError):
            Ledger(place, "main").read("coadd")
    ledger = Ledger(place, "main")
    assert [error.code for error in ledger.read_sound("coadd")[1].values()] == ["receipts-corrupt"]
    assert ledger.discard_damaged("coadd") == 1
    assert ledger.read("coadd") == {}


def test_many_segments_become_one(place):
    ledger = Ledger(place, "main")
    counts = []
    for number in range(200):
        ledger.append("coadd", [_receipt(f"u{number}", n=number)])
        counts.append(len(_segments(place)))
    assert max(counts) <= 33
    found = Ledger(place, "main").read("coadd")
    assert {r.figures["n"] for r in found.values()} == set(range(200))


def test_the_number_of_objects_and_the_bytes_written_do_not_grow_with_every_unit(place):
    ledger = Ledger(place, "main")
    units = 4000
    with recorded() as traffic:
        written = 0
        for start in range(0, units, 4):
            ledger.append("coadd", [_receipt(f"u{i}", n=i) for i in range(start, start + 4)])
            written += sum(item.size for item in traffic.written)
            traffic.objects.clear()
            assert len(_segments(place)) <= 33
    stored = sum(place.size(name) for name in _segments(place))
    # Every receipt is copied a few times, as often as the logarithm of their number.
    assert written < 8 * stored
    found = Ledger(place, "main").read("coadd")
    assert list(found) == [f"u{i}" for i in range(units)]
    assert found["u3999"].figures["n"] == 3999


def test_a_crash_while_merging_loses_nothing(place, monkeypatch):
    ledger = Ledger(place, "main")
    for number in range(32):
        ledger.append("coadd", [_receipt("u", n=number), _receipt(f"u{number}")])

    def killed(self, name):
        raise KeyboardInterrupt

    monkeypatch.setattr(Location, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        ledger.append("coadd", [_receipt("u", n=32)])
    found = Ledger(place, "main").read("coadd")
    assert len(found) == 33
    assert found["u"].figures["n"] == 32


def test_dropped_receipts_are_gone_and_the_others_stay(place):
    ledger = Ledger(place, "main")
    for unit in "abc":
        ledger.append("coadd", [_receipt(unit)])
    ledger.drop("coadd", {"b"})
    assert list(Ledger(place, "main").read("coadd")) == ["a", "c"]
    ledger.drop("coadd", {"a", "c"})
    assert Ledger(place, "main").read("coadd") == {}


def test_nothing_is_written_by_one_who_lost_the_lock(place):
    def lost():
        raise StoreError("lock-lost", "gone")

    with pytest.raises(StoreError):
        Ledger(place, "main", lost).append("coadd", [_receipt("a")])
    assert _segments(place) == []


def test_a_basis_names_the_parts_that_changed():
    before = Basis("i", "s", "0.1.0+ab", "u")
    assert Basis.parse(str(before)) == before
    assert before.changed(Basis("i", "t", "0.1.0+ab", "w")) == ("settings", "upstream")
    assert Basis.parse("d") == Basis()


def test_contents_are_told_by_what_was_written():
    one, two = (Receipt("coadd", "0", "d", written=(Written("x", 1, c),)) for c in "ab")
    assert one.content != two.content
    assert Receipt("coadd", "0", "d").content == ""
