import copy
import pickle
import re
from pathlib import Path

import pytest

from bgmatch_dask import errors
from bgmatch_dask.errors import BgmatchError, InputError, Rejected

KINDS = [getattr(errors, name) for name in errors.__all__ if name != "Rejected"]
SOURCE = Path(errors.__file__).parent


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_the_trip_from_a_worker(kind):
    error = kind("a-code", "It is broken.", where="file.fits", fix="Mend it.")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is kind
        assert (other.code, other.what, other.where, other.fix) == (
            "a-code",
            "It is broken.",
            "file.fits",
            "Mend it.",
        )
        assert str(other) == "[a-code] It is broken (file.fits). Mend it."


@pytest.mark.parametrize("kind", KINDS)
def test_all_errors_are_one_tree(kind):
    assert issubclass(kind, BgmatchError)


def test_place_and_advice_are_optional():
    assert str(BgmatchError("code", "Wrong")) == "[code] Wrong."


def test_a_rejection_keeps_code_and_advice():
    error = InputError("fits-truncated", "It ends early.", where="x", fix="Fetch it again.")
    assert Rejected.from_error(error, "a.fits") == Rejected(
        "fits-truncated", "It ends early. Fetch it again.", "a.fits"
    )
    assert Rejected.from_error(InputError("c", "Wrong."), "b").detail == "Wrong."


def test_every_error_of_the_package_has_a_stable_code():
    """Codes are literals in kebab case (or a variable of one), never a sentence."""
    found = 0
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"raise \w*Error\(\s*(\"[^\"]*\")", text):
            if not text[match.start() + 6 :].startswith(tuple(k.__name__ for k in KINDS)):
                continue
            assert re.fullmatch(r'"[a-z0-9]+(-[a-z0-9]+)*"', match.group(1)), (path, match[0])
            found += 1
    assert found > 50
