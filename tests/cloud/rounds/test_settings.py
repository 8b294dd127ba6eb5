import pytest

from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.protocol.settings.names import key_of
from fedperfit.protocol.system.errors import InputError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", 0),
        ("clients_per_round", -1),
        ("over_selection", 0.9),
        ("over_selection", float("nan")),
        ("goal", 0.0),
        ("goal", 1.1),
        ("min_updates", 0),
        ("deadline_seconds", 0.0),
        ("max_norm", float("inf")),
        ("max_items", 0),
        ("seed", -1),
        ("dtype", "float16"),
    ],
)
def test_an_error_names_the_setting_and_its_value(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{key_of(name)}=.?{value}.?: expected"):
        FederationSettings(**{"rounds": 1, name: value})


def test_more_updates_needed_than_wanted() -> None:
    with pytest.raises(InputError, match="min-updates=3 exceeds clients-per-round=2"):
        FederationSettings(rounds=1, clients_per_round=2, min_updates=3)


@pytest.mark.parametrize(
    ("clients", "per_round", "over", "goal", "asked", "enough"),
    [
        (10, 0, 1.0, 1.0, 10, 10),
        (10, 0, 1.5, 0.5, 10, 5),
        (100, 10, 1.1, 1.0, 11, 10),
        (100, 10, 1.25, 0.8, 13, 8),
        (4, 10, 2.0, 1.0, 4, 4),
        (100, 3, 1.0, 0.01, 3, 1),
    ],
)
def test_how_many_are_asked_and_are_enough(
    clients: int, per_round: int, over: float, goal: float, asked: int, enough: int
) -> None:
    settings = FederationSettings(rounds=1, clients_per_round=per_round, over_selection=over, goal=goal)
    assert settings.asked(clients) == asked
    assert settings.enough(clients) == enough
