"""What no policy may allow, whoever signs it and whoever agrees to it."""

import pytest
from tests.attacks.cloud_requests import policy

from fedperfit.protocol.system.errors import InputError


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 49},
        {"rank": 192},
        {"positions": "f9999"},
        {"positions": "f7+l26"},
        {"batch_size": 1},
        {"growth": 1},
        {"least_items": 1},
        {"max_items": 23},
        {"least_rate": 0.02, "most_rate": 0.01},
    ],
)
def test_what_would_tell_texts_can_be_agreed_to_by_nobody(base, change):
    assert policy(base).least_items == 24
    with pytest.raises(InputError) as caught:
        policy(base, **change)
    assert "\n" not in str(caught.value)


def test_the_limits_themselves_are_allowed(base):
    agreed = policy(base, rank=48, positions="f7+l25", batch_size=4, growth=4, least_items=4)
    assert agreed.shape.rank == 48
