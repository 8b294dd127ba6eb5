"""Which form of updates a new cloud has."""

from pathlib import Path

import pytest

from fedperfit.cloud.deployment.home import CloudHome, init, read_cloud
from fedperfit.cloud.enrolment.policy import policy_of
from fedperfit.cloud.job.basis import settings_basis
from fedperfit.protocol.model.base_model import read_card


@pytest.mark.parametrize("task", ["LaMP_2M", "LaMP_3", "LaMP_4"])
def test_updates_of_a_new_cloud_are_votes_in_the_basis_that_ships(tmp_path: Path, task: str) -> None:
    made = init(CloudHome(tmp_path / "cloud"), "quickstart", {"task": task, "rounds": 3})
    card = read_card("embedded")
    assert (made.update_basis, made.transport_dtype, made.collective_learning_rate) == (
        "public",
        "sign",
        1e-2,
    )
    basis = settings_basis(made, card)
    assert basis is not None
    assert basis.task == task
    policy = policy_of(made, card)
    assert (policy.update_basis, policy.update_codec, policy.update_numbers) == (basis.digest, "sign", 272)
    assert read_cloud(CloudHome(tmp_path / "cloud")) == made


def test_a_rate_that_was_given_is_kept(tmp_path: Path) -> None:
    made = init(CloudHome(tmp_path / "cloud"), "quickstart", {"collective-learning-rate": 2e-3})
    assert (made.update_basis, made.collective_learning_rate) == ("public", 2e-3)


@pytest.mark.parametrize(
    "given",
    [
        {"update-basis": "none"},
        {"transport-dtype": "bfloat16"},
        {"warm-start": True},
        {"collective-rank": 4},
        {"layers": "auto"},
        {"base-model": "a-model-of-our-own"},
        {"task": "LaMP_5"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_updates_are_whole_shifts_where_that_was_chosen_or_no_basis_ships(
    tmp_path: Path, given: dict[str, object]
) -> None:
    made = init(CloudHome(tmp_path / "cloud"), "quickstart", given)
    assert (made.update_basis, made.collective_learning_rate) == ("none", 5e-3)
