"""A text ends at the first stop text, wherever its pieces are cut, and the scores are those of its tokens."""

import random

import pytest

from fedperfit.edge.writing.scores import TokenScore
from fedperfit.edge.writing.stops import Stops


def passed_on(pieces: list[str], stops: list[str]) -> tuple[str, list[str], bool]:
    """Text and tokens that come of pieces whose tokens are their letters, then a token that ends them."""
    text, tokens = "", []

    def take(part: object) -> None:
        nonlocal text
        if isinstance(part, str):
            assert part
            text += part
            assert len(tokens) >= len(text), "scores come before their text"
        else:
            tokens.extend(one.text for one in part)

    told = Stops(stops, take)
    for piece in pieces:
        told([TokenScore(letter) for letter in piece])
        told(piece)
    told([TokenScore("</s>")])
    told.close()
    return text, tokens, told.found


@pytest.mark.parametrize("seed", range(20))
def test_any_cut_of_a_text_ends_at_the_same_place(seed: int):
    drawn = random.Random(seed)
    text = "".join(drawn.choices("ab", k=12))
    stops = ["".join(drawn.choices("ab", k=drawn.randint(1, 4))) for _ in range(2)]
    pieces, left = [], text
    while left:
        length = drawn.randint(1, 4)
        pieces.append(left[:length])
        left = left[length:]
    ends = [text.index(stop) for stop in stops if stop in text]
    if not ends:
        assert passed_on(pieces, stops) == (text, [*text, "</s>"], False)
        return
    end = min(end + len(stop) for stop in stops if (end := text.find(stop)) >= 0)
    kept, tokens, found = passed_on([text[:end]], stops)
    assert found
    assert passed_on(list(text), stops) == (kept, tokens, True)
    assert tokens == list(kept)
    assert not any(stop in kept for stop in stops)
    spanning, tokens, found = passed_on(pieces, stops)
    assert (tokens, found) == (list(spanning), True)
    assert len(spanning) <= len(kept)
