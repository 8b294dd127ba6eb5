"""What a cloud asks its edges to agree to: what its settings need, and no more."""

from pathlib import Path

import pytest

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.enrolment.policy import offered, policy_of
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import task_by_name
from fedperfit.protocol.trust.policy import Policy, verify_policy
from fedperfit.protocol.trust.signing import SigningKey


def settings(**changes: object) -> CloudSettings:
    values = {key.replace("_", "-"): value for key, value in changes.items()}
    return CloudSettings.from_flat(CloudSettings.own(read_preset("quickstart")) | values)


def test_only_what_the_settings_need_is_asked_for():
    card = read_card("embedded")
    policy = policy_of(settings(), card)
    assert policy.allowed == ["contribute", "personalize", "evaluate"]
    assert policy.shape == settings().shape(card)
    assert policy.least_items == 24
    assert "It may never ask for: moments, probe, pull, sum." in policy.sentences()
    warm = policy_of(settings(warm_start=True), card)
    assert set(warm.allowed) - set(policy.allowed) == {"pull"}


def test_an_update_may_be_trained_for_as_long_as_the_rounds_need():
    card = read_card("embedded")
    plain = policy_of(settings(personal_epochs=10), card)
    assert (plain.most_epochs_of("contribute"), plain.most_epochs_of("personalize")) == (2, 20)
    longer = policy_of(settings(personal_epochs=10, collective_epochs=3), card)
    assert (longer.most_epochs_of("contribute"), longer.most_epochs_of("personalize")) == (6, 20)
    assert "goes through them at most 6 times" in " ".join(longer.sentences())
    before = Policy.from_flat({k: v for k, v in plain.to_flat().items() if k != "update-epochs"})
    assert before.most_epochs_of("contribute") == 20, (
        "agreed on before contributions had a limit of their own"
    )


def test_with_secure_sums_the_committee_is_agreed_on_exactly():
    card = read_card("embedded")
    secure = {"update_basis": "random", "transport_dtype": "sign", "secure_aggregation": "committee"}
    policy = policy_of(settings(**secure), card)
    assert policy.allowed == ["contribute", "personalize", "evaluate", "sum"]
    committee = (policy.committee_size, policy.committee_corrupt, policy.committee_threshold)
    assert committee == (15, 3, 12)
    assert (policy.fewest_contributors, policy.clipping_norm) == (10, settings().clipping_norm)
    assert policy.sum_per_day == policy.contribute_per_day
    assert "would tell of fewer than 2 people" in " ".join(policy.sentences())
    assert policy_of(settings(), card).committee_size == 0
    with pytest.raises(InputError, match="fewest-contributors=4: edges tell sums of at least 5"):
        settings(**secure, fewest_contributors=4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": "auto"}, "fixed shape"),
        ({"collective_max_items": 23}, "collective-max-items=23"),
        ({"directions": True, "directions_items": 10}, "directions-items=10"),
    ],
)
def test_settings_that_no_edge_could_agree_to_are_one_line(changes, words):
    with pytest.raises(InputError, match=words) as caught:
        policy_of(settings(**changes), read_card("embedded"))
    assert "\n" not in str(caught.value)


def test_a_new_version_is_offered_when_the_settings_change_and_only_then(tmp_path: Path):
    home, key = CloudHome(tmp_path), SigningKey()
    first = offered(home, settings(), key)
    assert offered(home, settings(), key) == first
    second = verify_policy(offered(home, settings(rounds=99), key), key.public)
    assert (verify_policy(first, key.public).version, second.version) == (1, 2)
    assert second.contribute_per_day == 5 * 99
    assert second.personalize_per_day == 5 * 2  # each release may be fetched, fitted, and then asked for


def test_an_own_task_is_agreed_on_by_its_text(tmp_path: Path):
    file, key = tmp_path / "own.toml", SigningKey()
    file.write_text(
        'name = "Mood"\nkind = "labels"\nfields = ["note"]\ntarget = "mood"\nlabels = ["up", "down"]\n'
    )
    signed = offered(CloudHome(tmp_path), settings(task=str(file)), key)
    file.unlink()
    policy = verify_policy(signed, key.public)
    assert task_by_name(policy.task).labels == ("up", "down")
    assert any(policy.task_id in sentence for sentence in policy.sentences())


def test_a_policy_that_names_a_file_of_the_edge_is_refused(tmp_path: Path):
    card, key = read_card("embedded"), SigningKey()
    values = policy_of(settings(), card).to_flat() | {"task": str(tmp_path / "own.toml")}
    with pytest.raises(InputError, match="neither a task that ships nor the text"):
        verify_policy({"policy": values, "signature": key.sign("policy", values)}, key.public)


def test_a_policy_that_names_a_function_is_refused():
    """The edge would import it, and hand it answers."""
    card, key = read_card("embedded"), SigningKey()
    lines = [
        'name = "Mood"',
        'kind = "text"',
        'fields = ["note"]',
        'target = "mood"',
        'metrics = ["os:system"]',
    ]
    values = policy_of(settings(), card).to_flat() | {"task": "\n".join(lines)}
    with pytest.raises(InputError, match="os:system is a function"):
        verify_policy({"policy": values, "signature": key.sign("policy", values)}, key.public)


def test_a_basis_is_pinned_and_told():
    card = read_card("embedded")
    plain = policy_of(settings(), card)
    policy = policy_of(settings(update_basis="random", transport_dtype="sign"), card)
    assert (plain.update_basis, plain.update_numbers, policy.update_numbers) == ("", 0, 272)
    told = f"what changed in its 272 coordinates in the basis {policy.update_basis[:16]}, encoded as sign"
    assert any(told in sentence for sentence in policy.sentences())
    again = policy_of(settings(update_basis="random", transport_dtype="sign"), card)
    assert policy.update_basis == again.update_basis
    with pytest.raises(InputError, match="basis-file"):
        policy_of(settings(update_basis="public", update_columns=8), card)


def test_the_mirror_is_part_of_what_owners_agree_to():
    card = read_card("embedded")
    policy = policy_of(settings(mirror="https://cdn.example.org/ours"), card)
    assert policy.mirror == "https://cdn.example.org/ours"
    assert any("https://cdn.example.org/ours" in sentence for sentence in policy.sentences())
    assert not any("fetches" in sentence for sentence in policy_of(settings(), card).sentences())
    with pytest.raises(InputError, match="mirror='cdn': expected"):
        settings(mirror="cdn")
