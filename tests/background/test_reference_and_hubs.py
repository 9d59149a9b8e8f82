import numpy as np
import pytest

from bgmatch_dask.background.hubs import choose_hubs, pairs_for_patch
from bgmatch_dask.background.reference import (
    ENTRY_POINTS,
    ReferenceField,
    VisitFacts,
    chooser_names,
    find_chooser,
    tract_cost,
)
from bgmatch_dask.background.reference import choose_reference as choose
from bgmatch_dask.background.superpixels import measure_visit
from bgmatch_dask.errors import ConfigError, MatchError
from bgmatch_dask.geometry import Box, SuperpixelGrid


def choose_reference(sums, grid, chooser="tract_cost", visit=None, **facts):
    return choose(ReferenceField(sums, grid, **facts), chooser, visit=visit)


GRID = SuperpixelGrid(Box(0, 0, 384, 384), 32, 32)


def visit_sums(seed, width, *, sigma=1.0, slope=0.02, curve=0.0):
    rng = np.random.default_rng(seed)
    x = np.mgrid[:384, :384][1]
    image = (100 + slope * x + curve * (x - 190.0) ** 2 + rng.normal(0, sigma, x.shape)).astype(
        np.float32
    )
    image[:, width:] = np.nan
    return measure_visit(image, None, GRID.box, GRID, 0)


def test_coverage_counts_for_visits_of_equal_quality():
    for seed in range(4):
        sums = {1: visit_sums(seed, 128), 2: visit_sums(seed + 10, 384), 3: visit_sums(seed, 192)}
        choice = choose_reference(sums, GRID)
        assert choice.visit == 2
        assert not choice.forced
        table = {c.visit: c for c in choice.candidates}
        assert table[2].coverage == 1.0
        assert table[1].n_superpixels == 48
        assert all(0.4 < c.chi2 < 1.8 for c in choice.candidates)


def test_curved_and_noisy_visits_lose():
    sums = {
        1: visit_sums(1, 384, curve=1e-3),
        2: visit_sums(2, 384, sigma=3.0),
        3: visit_sums(3, 384),
    }
    assert choose_reference(sums, GRID).visit == 3


def test_one_bad_visit_changes_no_order():
    sums = {v: visit_sums(v, 384, sigma=1.0 + 0.1 * v) for v in range(4)}
    before = choose_reference(sums, GRID).cost_order
    sums[9] = visit_sums(9, 384, curve=1.0, sigma=100.0)
    after = choose_reference(sums, GRID).cost_order
    assert after[:4] == before
    assert after[4] == 9


@pytest.mark.parametrize("wanted", [0, "0"])
def test_reference_zero_is_an_id_like_any_other(wanted):
    sums = {7: visit_sums(1, 384), 0: visit_sums(2, 100)}
    choice = choose_reference(sums, GRID, visit=wanted)
    assert choice.visit == 0
    assert choice.forced


def test_unknown_reference_and_no_candidates():
    sums = {7: visit_sums(1, 384)}
    with pytest.raises(MatchError) as error:
        choose_reference(sums, GRID, visit=8)
    assert error.value.code == "reference-unknown"
    with pytest.raises(MatchError) as error:
        choose_reference({7: visit_sums(1, 0)}, GRID)
    assert error.value.code == "reference-none"
    with pytest.raises(MatchError) as error:
        choose_reference({}, GRID)
    assert error.value.code == "reference-none"


def test_ties_go_to_the_lowest_visit():
    one = visit_sums(1, 384)
    assert choose_reference({"10": one, "9": one}, GRID).visit == "9"
    assert [c.visit for c in tract_cost(ReferenceField({10: one, 9: one}, GRID))] == [9, 10]


def test_depth_weighs_seeing_exposure_and_noise():
    sums = {1: visit_sums(1, 384, sigma=1.0), 2: visit_sums(2, 384, sigma=1.2)}
    facts = {1: VisitFacts(fwhm=4.0), 2: VisitFacts(fwhm=3.0)}
    choice = choose_reference(sums, GRID, "depth", facts=facts)
    assert choice.visit == 2
    found = {c.visit: c for c in choice.candidates}
    for visit, sigma in ((1, 1.0), (2, 1.2)):
        expected = 1 / (facts[visit].fwhm ** 2 * sigma**2)
        assert found[visit].depth == pytest.approx(expected, rel=0.1)
        assert found[visit].missing == ()
    # Without a common flux scale, a visit of half the counts is not the quieter one.
    sums = {1: visit_sums(1, 384, sigma=1.0), 2: visit_sums(2, 384, sigma=1.2)}
    facts = {1: VisitFacts(15.0, 3.0), 2: VisitFacts(30.0, 3.0)}
    assert choose_reference(sums, GRID, "depth", facts=facts).visit == 1
    assert choose_reference(sums, GRID, "depth", facts=facts, calibrated=False).visit == 2


def test_depth_says_what_it_does_not_know():
    sums = {v: visit_sums(v, 384) for v in (1, 2, 3)}
    facts = {1: VisitFacts(fwhm=2.0), 2: VisitFacts(exposure_time=30.0)}
    choice = choose_reference(sums, GRID, "depth", facts=facts, calibrated=False)
    missing = {c.visit: c.missing for c in choice.candidates}
    assert missing == {1: ("exposure_time",), 2: ("fwhm",), 3: ("exposure_time", "fwhm")}
    assert all(np.isfinite(c.cost) for c in choice.candidates)


def test_legacy_cost_prefers_dark_quiet_and_broad_visits():
    good = visit_sums(1, 384)
    for worse in (visit_sums(1, 384, sigma=2.0), visit_sums(1, 384, slope=0.1), visit_sums(1, 192)):
        assert choose_reference({1: worse, 2: good}, GRID, "legacy_cost").visit == 2
    choice = choose_reference({1: good, 2: visit_sums(2, 0)}, GRID, "legacy_cost")
    assert choice.visit == 1
    assert set(choice.candidates[0].terms) == {"variance", "level", "coverage"}


@pytest.mark.parametrize("chooser", ["tract_cost", "legacy_cost", "depth"])
def test_cost_grows_as_coverage_falls(chooser):
    widths = {1: 384, 2: 288, 3: 192, 4: 96}
    for seed in range(4):
        sums = {v: visit_sums(seed, width, slope=0.0) for v, width in widths.items()}
        assert choose_reference(sums, GRID, chooser).cost_order == (1, 2, 3, 4)


def test_a_chooser_names_a_visit():
    sums = {0: visit_sums(1, 100), 7: visit_sums(2, 384)}
    choice = choose_reference(sums, GRID, "visit=0")
    assert (choice.visit, choice.forced) == (0, True)
    assert choice.candidates[0].terms
    with pytest.raises(MatchError, match="reference-unknown"):
        choose_reference(sums, GRID, "visit=8")


def test_choosers_of_other_packages(tmp_path, monkeypatch):
    package = tmp_path / "other-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        f"[{ENTRY_POINTS}]\nwidest = other_choosers:widest\nbroken = other_choosers:absent\n"
    )
    (tmp_path / "other_choosers.py").write_text(
        "from bgmatch_dask.background.reference import Candidate\n\n\n"
        "def widest(seen):\n"
        "    return tuple(Candidate(v, 1, 1.0, 1.0, 1.0, cost=-float(s.n_good.sum()))\n"
        "                 for v, s in sorted(seen.sums.items()))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sums = {1: visit_sums(1, 100), 2: visit_sums(2, 384)}
    assert "widest" in chooser_names()
    assert choose_reference(sums, GRID, "widest").visit == 2
    with pytest.raises(ConfigError, match="chooser-broken"):
        find_chooser("broken")
    with pytest.raises(ConfigError, match=r"chooser-unknown.*widest"):
        find_chooser("nothing")


def tiles(starts, width=6, size=60):
    out = {}
    for visit, start in enumerate(starts):
        plane = np.zeros((4, size), bool)
        plane[:, start : start + width] = True
        out[visit] = plane
    return out


def test_small_tracts_difference_all_pairs():
    coverage = tiles(range(0, 40, 5))
    assert sorted(choose_hubs(coverage, list(coverage), 3)) == list(range(8))


def test_chain_keeps_every_link():
    coverage = tiles(range(0, 54, 3), width=4)
    hubs = choose_hubs(coverage, list(coverage), 0, depth=1)
    assert hubs[0] == 0
    group = {v: v for v in coverage}
    for hub, visit in pairs_for_patch(hubs, coverage):
        if (coverage[hub] & coverage[visit]).any():
            old, new = group[visit], group[hub]
            group = {v: new if g == old else g for v, g in group.items()}
    assert len(set(group.values())) == 1


def test_deep_tract_needs_few_hubs():
    rng = np.random.default_rng(4)
    coverage = {}
    for visit in range(100):
        plane = np.zeros((25, 25), bool)
        y, x = rng.integers(-5, 15, 2)
        plane[max(y, 0) : y + 15, max(x, 0) : x + 15] = True
        coverage[visit] = plane
    hubs = choose_hubs(coverage, list(coverage), 50)
    depth = sum(coverage[h].astype(int) for h in hubs)
    total = sum(c.astype(int) for c in coverage.values())
    assert (depth >= np.minimum(total, 3)).all()
    assert len(hubs) < 25
    assert len(choose_hubs(coverage, list(coverage), 50, max_hubs=2)) < len(hubs)


def test_islands_do_not_loop_forever():
    coverage = tiles([0, 0, 0, 30, 30, 30] * 3) | {99: np.zeros((4, 60), bool)}
    hubs = choose_hubs(coverage, list(coverage), 5, max_hubs=1)
    assert len(hubs) == 2
    assert 99 not in hubs


def test_pairs_once_and_oriented_by_hub_order():
    pairs = pairs_for_patch((5, 2), [1, 2, 5, 7])
    assert pairs == ((5, 1), (5, 2), (5, 7), (2, 1), (2, 7))
    assert pairs_for_patch((5, 2), [1, 2]) == ((2, 1),)
