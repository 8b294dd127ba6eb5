"""Which form of updates a new cloud has."""

import shutil
from importlib import resources
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedperfit.cloud.deployment.home import CloudHome, init, read_cloud
from fedperfit.cloud.enrolment.policy import policy_of
from fedperfit.cloud.job.basis import read_basis, settings_basis
from fedperfit.protocol.model.base_model import embedded_folder, read_card
from fedperfit.protocol.people.scatter import Scatter
from fedperfit.protocol.system.errors import InputError

SHIPPED = Path(str(resources.files("fedperfit.configs") / "bases" / "LaMP_2M.basis"))


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


def test_what_owners_agree_to_in_a_cloud_that_sets_nothing(tmp_path: Path) -> None:
    made = init(CloudHome(tmp_path / "cloud"), "quickstart", {})
    policy = policy_of(made, read_card("embedded"))
    assert policy.allowed == ["contribute", "personalize", "evaluate"]
    assert (policy.max_items, policy.least_items, policy.growth) == (24, 24, 8)
    assert (policy.update_codec, policy.update_numbers, policy.batch_size) == ("sign", 272, 8)
    assert (policy.contribute_per_day, policy.rank, policy.positions) == (5 * made.rounds, 8, "l7")
    assert (made.secure, made.private, policy.committee_size) == (False, False, 0)
    assert "The cloud sees it" in " ".join(policy.sentences())


def test_noise_and_a_basis_of_persons_need_no_other_setting(tmp_path: Path) -> None:
    given = {"target-epsilon": 2.0, "personal-basis": "update", "transport-dtype": "int8"}
    made = init(CloudHome(tmp_path / "cloud"), "quickstart", given)
    assert (made.update_basis, made.transport_dtype, made.private) == ("public", "int8", True)


def test_a_cloud_that_is_to_see_sums_alone_says_so_from_the_start(tmp_path: Path) -> None:
    made = init(CloudHome(tmp_path / "cloud"), "quickstart", {"secure-aggregation": "committee"})
    policy = policy_of(made, read_card("embedded"))
    assert (policy.update_codec, policy.committee_size, policy.fewest_apart) == ("sign", 15, 2)
    assert "The cloud never sees it" in " ".join(policy.sentences())
    assert "The cloud sees it" not in " ".join(policy.sentences())


def test_a_folder_that_others_could_enter_is_closed_to_them(tmp_path: Path) -> None:
    home = CloudHome(tmp_path / "cloud")
    home.folder.mkdir(mode=0o755)
    init(home, "quickstart", {})
    assert home.folder.stat().st_mode & 0o777 == 0o700


def test_a_rate_that_was_given_is_kept(tmp_path: Path) -> None:
    made = init(CloudHome(tmp_path / "cloud"), "quickstart", {"collective-learning-rate": 2e-3})
    assert (made.update_basis, made.collective_learning_rate) == ("public", 2e-3)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"warm-start": True}, "warm-start=true"),
        ({"layers": "auto"}, "auto"),
        ({"collective-rank": 4}, "no basis of public items ships for LaMP_2M on embedded in this shape"),
        ({"base-model": "a-model-of-our-own"}, "LaMP_2M on a-model-of-our-own"),
        ({"task": "LaMP_5"}, "LaMP_5 on embedded"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_nobody_gets_whole_shifts_without_having_asked_for_them(
    tmp_path: Path, given: dict[str, object], told: str
) -> None:
    home = CloudHome(tmp_path / "cloud")
    with pytest.raises(InputError, match=told) as error:
        init(home, "quickstart", given)
    assert "update-basis=none" in str(error.value)
    assert not home.folder.exists()
    made = init(home, "quickstart", {**given, "update-basis": "none"})
    assert (made.update_basis, made.collective_learning_rate) == ("none", 5e-3)


def test_a_basis_of_ones_own_and_another_codec_are_taken_as_they_are(tmp_path: Path) -> None:
    own = tmp_path / "our.basis"
    shutil.copy(SHIPPED, own)
    given: dict[str, object] = {"base-model": "a-model-of-our-own", "basis-file": str(own)}
    made = init(CloudHome(tmp_path / "cloud"), "quickstart", given)
    assert (made.update_basis, made.transport_dtype, made.basis_file) == ("public", "sign", str(own))
    other = init(CloudHome(tmp_path / "other"), "quickstart", {"transport-dtype": "bfloat16"})
    assert (other.update_basis, other.transport_dtype) == ("public", "bfloat16")


@pytest.mark.parametrize(("content", "told"), [(None, "No such file"), (b"{}", "our.basis: ")])
def test_a_basis_file_that_is_none_is_refused_at_once(
    tmp_path: Path, content: bytes | None, told: str
) -> None:
    own, home = tmp_path / "our.basis", CloudHome(tmp_path / "cloud")
    if content is not None:
        own.write_bytes(content)
    with pytest.raises(InputError, match=told):
        init(home, "quickstart", {"basis-file": str(own)})
    assert not home.folder.exists()


@pytest.mark.parametrize("model", ["embedded", "a-model-of-our-own"])
@pytest.mark.parametrize(
    "other",
    [
        {"task": "LaMP_3"},
        {"collective-rank": 4},
        {"layers": [2, 5]},
        {"positions": "f3+l7"},
        {"update-columns": 8},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_basis_file_for_another_shape_is_refused_before_anything_is_made(
    tmp_path: Path, model: str, other: dict[str, object]
) -> None:
    home = CloudHome(tmp_path / "cloud")
    with pytest.raises(InputError, match=r"LaMP_2M.basis: the basis is for "):
        init(home, "quickstart", {"base-model": model, "basis-file": str(SHIPPED), **other})
    assert not home.folder.exists()


def test_a_basis_file_of_another_model_is_refused_where_the_model_is_there(tmp_path: Path) -> None:
    home, model = CloudHome(tmp_path / "cloud"), tmp_path / "model"
    shutil.copytree(embedded_folder(), model)
    weights = load_file(model / "model.safetensors")
    save_file({name: -tensor for name, tensor in weights.items()}, model / "model.safetensors")
    with pytest.raises(InputError, match="the basis is for base model "):
        init(home, "quickstart", {"base-model": str(model), "basis-file": str(SHIPPED)})
    assert not home.folder.exists()


def test_a_basis_that_clients_would_make_is_refused_as_owners_could_not_agree_to_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="update-basis=federated: owners agree to a basis before"):
        init(CloudHome(tmp_path / "cloud"), "quickstart", {"update-basis": "federated"})
    assert not (tmp_path / "cloud").exists()


def test_public_people_are_those_of_a_file_that_is_named(tmp_path: Path) -> None:
    values = {"personal-basis": "update", "people-prior": True, "prior-source": "public"}
    with pytest.raises(InputError, match="prior-source=public: name a prior-file"):
        init(CloudHome(tmp_path / "cloud"), "quickstart", values)
    people, home = tmp_path / "people", CloudHome(tmp_path / "cloud")
    people.write_bytes(b"")
    with pytest.raises(InputError, match="people: not what differs between people"):
        init(home, "quickstart", values | {"prior-file": str(people)})
    assert not home.folder.exists()
    basis = read_basis(SHIPPED)
    people.write_bytes(Scatter.of(basis.digest, torch.randn(3, basis.numbers)).to_bytes())
    made = init(home, "quickstart", values | {"prior-file": str(people)})
    assert (made.transport_dtype, made.prior_file) == ("sign", str(people))
