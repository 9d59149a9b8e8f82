"""Headers of FITS files read card by card, as far as their cards are plain.

Reading thousands of headers is what planning takes, and astropy spends milliseconds on each. What
is wanted of a warp stands in a few cards of the most common forms; a header that holds anything
else is refused here, and left to astropy. FITS Standard 4.0, section 4; keywords of several words
are of the ESO HIERARCH convention.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ("OddCardError", "PlainCard", "PlainHeader")

_CARD = 80
_KEY = re.compile(r"([A-Z0-9_-]{1,8}) *")
_WORDS = re.compile(r"HIERARCH ([A-Z0-9_-]+(?: [A-Z0-9_-]+)*) *= ")
_OF_TABLE = re.compile(r"XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|TFIELDS|(TTYPE|TFORM)\d+")
_OF_IMAGE = re.compile(r"ZBITPIX|ZNAXIS\d*")
_COMMENTS = frozenset({"", "COMMENT", "HISTORY"})
_VALUE = re.compile(
    r" *(?:'([^']*)'|([+-]?\d{1,18})|([+-]?(?:\d+\.\d*|\.\d+)(?:[ED][+-]?\d{1,3})?)|([TF]))"
    r" *(?:/.*)?"
)
"""Text without a quote, whole number, real number or truth, and a comment."""


class OddCardError(ValueError):
    """A card is of a form that is left to astropy."""


class PlainCard(NamedTuple):
    """One card."""

    keyword: str
    """Its keyword, without ``HIERARCH``."""
    image: str
    """Its 80 characters."""
    start: int
    """Where its value begins in them; 0 for a comment."""

    @property
    def value(self) -> Any:  # noqa: ANN401
        """Its value: text, a number or a truth.

        Raises
        ------
        OddCardError
            When it is of no common form.
        """
        found = _VALUE.fullmatch(self.image, self.start) if self.start else None
        if found is None:
            raise OddCardError(self.keyword)
        text, whole, real, truth = found.groups()
        if text is not None:
            return _text(text, self.keyword)
        if whole is not None:
            return int(whole)
        return float(real.replace("D", "E")) if real is not None else truth == "T"


class PlainHeader(Mapping[str, Any]):
    """A header whose cards are plain; of two cards of one keyword the first counts.

    Parameters
    ----------
    cards
        Its cards.
    """

    def __init__(self, cards: Iterable[PlainCard]) -> None:
        self.cards = tuple(cards)
        self._first: dict[str, PlainCard] = {}
        for card in self.cards:
            self._first.setdefault(card.keyword, card)

    @classmethod
    def read(cls, block: bytes) -> PlainHeader:
        """Return the header of which these are all bytes.

        Raises
        ------
        OddCardError
            When a card may mean more than it says alone, or is not as the standard has it.
        """
        if not (block.isascii() and (text := block.decode("ascii")).isprintable()):
            raise OddCardError("bytes that are no text")
        return cls(_cards(text))

    def as_image(self) -> PlainHeader:
        """Return the header of the image that is in the table of this header.

        Keywords of the table that an image has too are those of the image (FITS Standard 4.0,
        section 10.1.1); other keywords stay.
        """
        return PlainHeader(
            card._replace(keyword=card.keyword.removeprefix("Z"))
            if _OF_IMAGE.fullmatch(card.keyword)
            else card
            for card in self.cards
            if not _OF_TABLE.fullmatch(card.keyword)
        )

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401
        """Return the value of the first card of a keyword."""
        return self._first[key].value

    def __contains__(self, key: object) -> bool:
        """Whether there is a card of a keyword."""
        return key in self._first

    def __iter__(self) -> Iterator[str]:
        """Yield the keywords."""
        return iter(self._first)

    def __len__(self) -> int:
        """Return the number of keywords."""
        return len(self._first)


def _cards(text: str) -> Iterator[PlainCard]:
    for start in range(0, len(text), _CARD):
        image = text[start : start + _CARD]
        key = image[:8].rstrip()
        if key == "END":
            if text[start + 3 :].strip():
                raise OddCardError(key)
            return
        if key in _COMMENTS:
            continue
        words = _WORDS.match(image) if key == "HIERARCH" else None
        if words is not None:
            yield PlainCard(words.group(1), image, words.end())
        elif image[8:10] == "= " and _KEY.fullmatch(image, 0, 8):
            yield PlainCard(key, image, 10)
        else:
            raise OddCardError(key)
    raise OddCardError("END")


def _text(text: str, keyword: str) -> str:
    text = text.rstrip()
    if not text or text.endswith("&"):
        # No text and empty text are told apart; a text may go on in the next card.
        raise OddCardError(keyword)
    return text
