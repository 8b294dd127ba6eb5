"""Text that is safe to print: as people spell it, and nothing that a terminal would obey or hide."""

import pytest

from fedperfit.protocol.system.errors import count_of, printable


@pytest.mark.parametrize(
    "name",
    [
        "Anne\u00a0Marie",
        "山田\u3000太郎",
        "12\u202f000",
        "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627",  # Persian: two parts of one word that are not joined
        "ක්\u200dරිස්ටීන්",  # Sinhala: two letters that are one sign
        "അവന്\u200d",  # Malayalam: a sign without its vowel, at the end of a word
        "র\u200d্যা",  # Bengali: the joiner stands before the virama
        "👩🏽\u200d🚀 ada",
    ],
)
def test_what_people_write_stays(name):
    assert printable(name) == name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", "a?[31mb"),
        ("a\nb\u2028c", "a?b?c"),
        ("ada\u202egpj", "ada?gpj"),
        ("\u2066ada\u2069", "?ada?"),
        ("\u200fada\u200e", "?ada?"),
        ("ad\u200ba", "ad?a"),
        ("ad\u00ada", "ad?a"),
        ("\ufeffada", "?ada"),
        ("ada\u200c", "ada?"),
        ("\u200dada", "?ada"),
        ("ada \u200cb", "ada ?b"),
        ("ad\u200c\u200ca", "ad??a"),
        ("1\u200d2", "1?2"),
        ("a\ud800", "a?"),
        ("", ""),
    ],
)
def test_what_hides_or_turns_text_does_not(text, shown):
    assert printable(text) == shown


def test_one_is_told_as_one() -> None:
    assert [count_of(number, "item") for number in (0, 1, 2, 1200)] == [
        "0 items",
        "1 item",
        "2 items",
        "1,200 items",
    ]
    assert [count_of(number, "person", "people") for number in (1, 2)] == ["1 person", "2 people"]
