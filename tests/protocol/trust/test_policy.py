"""What no policy allows, whoever offers it and whoever agrees to it."""

import pytest
from tests.edge.deployment.deployments import policy

from fedperfit.protocol.system.errors import InputError

COMMITTEE = {
    "update_basis": "a" * 64,
    "update_numbers": 9,
    "committee_size": 5,
    "committee_corrupt": 1,
    "committee_threshold": 4,
    "fewest_contributors": 3,
    "clipping_norm": 0.5,
}


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


def test_an_owner_is_told_that_a_basis_of_all_directions_is_as_good_as_a_whole_shift():
    """A cloud makes the basis; of as many rows as a state is wide it leaves nothing out."""
    everything = policy(update_basis="0" * 64, update_numbers=2 * 4 * (192 + 1), update_codec="float32")
    assert "So many are near a whole shift: the larger the model" in " ".join(everything.sentences())


def test_the_policy_says_in_words_what_sums_are_told():
    words = " ".join(policy(**COMMITTEE).sentences())
    assert "sealed to a committee of 5 machines drawn from all that are enrolled; 4 of them tell" in words
    assert "the sum of at least 3 people; the cloud may control 1 of them" in words
    assert "Open updates are refused." in words
    assert "Up to 1,000 times a day your machine may be one of them" in words
    assert "sealed" not in " ".join(policy().sentences())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fewest_contributors": 2}, "fewest-contributors=2: with committee-corrupt=1 a sum of fewer than 3"),
        ({"committee_threshold": 3}, "committee-threshold=3: expected 4 to 5"),
        ({"update_basis": ""}, "sums need an update basis"),
        ({"committee_size": 101}, "committee-size"),
    ],
)
def test_no_policy_has_a_committee_that_hides_nothing(changes, said):
    with pytest.raises(InputError, match=said):
        policy(**COMMITTEE | changes)
