"""The words of the hidden rules: their kinds divide them, and no list says a word twice."""

import pytest

from innerloop.data.suites import words
from innerloop.data.suites.words import KIND_OF, LABELS, WORD_KINDS, WORDS


def test_words_are_of_one_kind_and_no_label() -> None:
    assert len(set(WORDS)) == sum(len(words) for words in WORD_KINDS.values()) == 240
    assert not set(WORDS) & set(LABELS)


def test_a_word_is_of_the_kind_that_lists_it() -> None:
    assert {kind: sum(found == kind for found in KIND_OF.values()) for kind in WORD_KINDS} == dict.fromkeys(
        WORD_KINDS, 40
    )
    assert all(word in WORD_KINDS[KIND_OF[word]] for word in WORDS)


@pytest.mark.parametrize(
    "name", ["WORDS", "LABELS", "LETTERS", "DIGITS", "COLOURS", "DIRECTIONS", "DAYS", "MONTHS", "MEASURES"]
)
def test_a_list_says_no_word_twice_and_none_of_two(name: str) -> None:
    found = getattr(words, name)
    assert len(set(found)) == len(found) >= 7
    assert all(word.strip() == word and len(word.split()) == 1 for word in found)
