"""What no policy allows, whoever offers it and whoever agrees to it."""

import pytest
from tests.edge.deployment.deployments import policy

from fedperfit.protocol.system.errors import InputError


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 49}, "rank=49 of 192 dimensions"),
        ({"positions": "f33"}, "positions=f33"),
        ({"positions": "f20+l13"}, "positions=f20"),
        ({"batch_size": 3}, "batch-size"),
        ({"growth": 3}, "growth"),
        ({"least_items": 3}, "least-items"),
        ({"most_answers": 2048}, "most-answers"),
    ],
)
def test_what_would_tell_the_texts_behind_an_update_is_in_no_policy(changes, words):
    assert policy(rank=48, positions="f32", batch_size=4)
    with pytest.raises(InputError, match=words):
        policy(**changes)


def test_an_owner_is_told_that_updates_are_whole_shifts_and_only_then():
    words = "more words of those items can be read"
    assert words in " ".join(policy().sentences())
    votes = policy(update_basis="0" * 64, update_numbers=272, update_codec="sign")
    assert words not in " ".join(votes.sentences())
