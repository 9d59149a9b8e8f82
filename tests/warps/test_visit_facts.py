import pytest
from astropy.io import fits

from bgmatch_dask import open_tract
from bgmatch_dask.errors import StoreError
from bgmatch_dask.pipeline.plan import make_plan
from bgmatch_dask.pipeline.run import run_tract
from bgmatch_dask.store import Location
from bgmatch_dask.store.visits import read_visits, write_visits
from bgmatch_dask.warps.visit_facts import combine_facts, facts_of


def test_the_first_header_that_knows_is_believed():
    first = fits.Header(
        [("EXPTIME", 30.0), ("FILTER", "i_39"), ("DATE-AVG", "2026-01-02T12:00:00")]
    )
    second = fits.Header([("EXPTIME", 99.0), ("SEEING", 0.8)])
    assert dict(facts_of(first, second)) == {
        "exposure_time": 30.0,
        "mjd": 61042.5,
        "fwhm": 0.8,
        "physical_filter": "i_39",
    }


@pytest.mark.parametrize(
    "card",
    [
        ("EXPTIME", "thirty"),
        ("EXPTIME", -1.0),
        ("EXPTIME", True),
        ("SEEING", 0.0),
        ("DATE-AVG", "yesterday"),
        ("MJD-AVG", 1e300),
        ("FILTER", 3),
        ("FILTER", "x" * 66),
    ],
)
def test_nonsense_is_passed_over(card):
    assert facts_of(fits.Header([card])) == ()


def test_files_of_a_visit_are_put_together():
    files = [(("fwhm", 0.8), ("physical_filter", "i")), (("fwhm", 1.0),), (("fwhm", 3.0),)]
    assert combine_facts(files) == {"fwhm": 1.0, "physical_filter": "i"}


def test_the_store_keeps_them_and_shows_them(job):
    plan = make_plan(job)
    run_tract(plan)
    table = read_visits(plan.location)
    assert list(table) == sorted(plan.spec.visits)
    assert {facts["exposure_time"] for facts in table.values()} == {30.0}
    ds = open_tract(plan.location.url)
    assert ds["exposure_time"].dims == ("visit",)
    assert ds["fwhm"].attrs["units"] == "arcsec"
    assert (ds["fwhm"] > 0.3).all()
    assert ds["mjd"].values.tolist() == [table[v]["mjd"] for v in plan.spec.visits]


def test_later_visits_join_the_table(tmp_path):
    place = Location.of(str(tmp_path / "t.zarr"))
    assert read_visits(place) == {}
    write_visits(place, {"a": {"fwhm": 1.0}})
    write_visits(place, {"b": {}})
    assert read_visits(place) == {"a": {"fwhm": 1.0}, "b": {}}


@pytest.mark.parametrize("text", [b"{", b'{"schema": 99, "visits": {}}', b'{"schema": 1}', b"[]"])
def test_a_broken_table_is_an_error(tmp_path, text):
    place = Location.of(str(tmp_path / "t.zarr"))
    place.write_bytes("visits.json", text)
    with pytest.raises(StoreError) as caught:
        read_visits(place)
    assert caught.value.code == "store-corrupt"
