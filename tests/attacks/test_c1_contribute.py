"""C1: a cloud reads a history out of `contribute`; `reading.py` and `reading_coordinates.py` say how."""

from itertools import pairwise
from pathlib import Path

import pytest
from tests.attacks.by_hand import reading_coordinates as in_basis
from tests.attacks.cloud_requests import Edge, policy, shape, training
from tests.attacks.reading import CLIP, RATE, read, shared_tokens, steps_within_policy, unguarded

from fedperfit.edge.consent.guard import Guard
from fedperfit.edge.consent.refusal import Refused
from fedperfit.protocol.model.base_model import BaseModel, load
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.tasks import Pair


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load("embedded", device="cpu", dtype="float32")


def test_without_a_guard_one_update_spells_out_an_item(tmp_path: Path, base: BaseModel) -> None:
    edge = Edge.make(tmp_path, base, guarded=False)
    assert unguarded(base, edge) > 0.95


@pytest.mark.parametrize(
    ("wrong_shape", "wrong_training"),
    [
        ({"layers": (0,)}, {}),
        ({"layers": (3,)}, {}),
        ({"rank": 192}, {}),
        ({"rank": 16}, {}),
        ({"positions": Positions.parse("f9999")}, {}),
        ({"positions": Positions.parse("l8")}, {}),
        ({}, {"learning_rate": RATE}),
        ({}, {"learning_rate": 1e-9}),
        ({}, {"clip_norm": CLIP}),
        ({}, {"clip_norm": 1e9}),
        ({}, {"weight_decay": 0.9}),
        ({}, {"epochs": 10_000}),
        ({}, {"epochs": 3}),
        ({}, {"batch_size": 1}),
        ({}, {"batch_size": 24}),
        ({}, {"max_items": 1}),
        ({}, {"max_items": 23}),
        ({}, {"max_items": 25}),
        ({}, {"max_items": 0}),
        ({}, {"prompt_form": "oppu"}),
    ],
)
def test_each_part_of_the_request_is_refused_before_anything_is_computed(
    tmp_path: Path,
    base: BaseModel,
    monkeypatch: pytest.MonkeyPatch,
    wrong_shape: dict[str, object],
    wrong_training: dict[str, object],
) -> None:
    edge = Edge.make(tmp_path, base, guarded=True)
    monkeypatch.setattr(edge.agent, "contribute", lambda *_: pytest.fail("computed"))
    with pytest.raises(Refused):
        edge.contribute(Shift.identity(shape(base, **wrong_shape), seed=0), training(**wrong_training))


@pytest.mark.parametrize("change", ["R", "W", "b", "nan"])
def test_a_shift_that_is_none_of_ours_is_refused(tmp_path: Path, base: BaseModel, change: str) -> None:
    edge = Edge.make(tmp_path, base, guarded=True)
    honest = Shift.identity(shape(base), seed=0)
    tensors = {name: getattr(honest, name).detach().clone() for name in ("R", "W", "b")}
    if change == "nan":
        tensors["W"][0, 0, 0] = float("nan")
    elif change == "R":
        tensors["R"] *= 1e-9
        tensors["W"] *= 1e-9
    else:
        tensors[change] += 1e3
    with pytest.raises(Refused):
        edge.contribute(Shift(honest.shape, **tensors), training())


def test_within_the_policy_reading_is_at_chance(tmp_path: Path, base: BaseModel) -> None:
    """Eight updates of shifts that the cloud chooses at random within the policy, read together."""
    one, other = (Edge.make(tmp_path / seed, base, guarded=True, seed=seed) for seed in ("one", "other"))
    own, anothers = steps_within_policy(base, one), steps_within_policy(base, other)
    assert read(base, one, own) < read(base, one, anothers) + 0.15


def test_in_a_basis_one_item_is_read_without_a_guard_and_not_within_the_policy(
    tmp_path: Path, base: BaseModel
) -> None:
    basis = in_basis.public(base, pairs=32)
    one, other, free = (
        Edge.make(tmp_path / name, base, guarded=name != "free", seed=seed, basis=basis)
        for name, seed in (("one", "one"), ("other", "other"), ("free", "one"))
    )
    with pytest.raises(Refused, match="a whole shift; agreed is the basis"):
        one.contribute(Shift.identity(shape(base), seed=0), training())
    with pytest.raises(Refused, match="agreed is"):
        one.contribute_coordinates(Coordinates.zero(basis), training(), "float32")
    examples = one.examples(24)
    start = shared_tokens(examples)
    alone = in_basis.unguarded(free, basis)
    assert in_basis.read(base, basis, examples[-1:], alone, start) > 0.95
    own, anothers = (in_basis.updates_within_policy(edge, basis) for edge in (one, other))
    by_own, by_anothers = (in_basis.read(base, basis, examples[:3], seen, start) for seen in (own, anothers))
    assert by_own < by_anothers + 0.15


def pairs(count: int, start: int = 0) -> list[Pair]:
    return [Pair(f"prompt {n}", "target") for n in range(start, start + count)]


def test_two_contributions_never_differ_in_a_few_items(tmp_path: Path, base: BaseModel) -> None:
    """Learning items one by one: without a guard each update tells the new item by its difference."""
    guard = Guard(tmp_path / "guard.json", policy(base, max_items=0))
    used = []
    for count in range(24, 60):
        used.append(guard.items(pairs(count)))
    sizes = sorted(set(used))
    assert sizes[0] == 24
    assert min(later - earlier for earlier, later in pairwise(sizes)) >= 8
    assert guard.items(pairs(59)) == used[-1]


def test_items_that_were_taken_out_or_changed_are_not_told_by_a_difference(
    tmp_path: Path, base: BaseModel
) -> None:
    guard = Guard(tmp_path / "guard.json", policy(base, max_items=0))
    whole = pairs(40)
    guard.items(whole)
    for few in (whole[1:], whole[:-1], [*whole[:5], Pair("changed", "target"), *whole[6:]]):
        with pytest.raises(Refused, match="differ"):
            guard.items(few)
    again = Guard(tmp_path / "guard.json", policy(base, max_items=0))
    assert again.items(whole) == 40, "it is remembered across restarts"
    assert again.items([*whole[8:], *pairs(4, start=100)]) == 36


def test_no_contribution_differs_from_an_earlier_one_in_a_few_items(tmp_path: Path, base: BaseModel) -> None:
    """There and back: each set differs from the last one in enough, and from the first in a single item."""
    path = tmp_path / "guard.json"
    whole, learned = pairs(40), pairs(8, start=100)

    def items(held: list[Pair], **changes: object) -> int:
        return Guard(path, policy(base, **{"max_items": 0} | changes)).items(held)

    assert items(whole) == 40
    assert items([*whole, *learned]) == 48
    with pytest.raises(Refused, match="some earlier contribution"):
        items(whole[1:])
    assert items(whole) == 40, "the same set tells nothing new"
    assert items([*whole[1:], *pairs(8, start=200)]) == 47


def test_a_new_agreement_on_the_number_of_items_tells_no_single_one(tmp_path: Path, base: BaseModel) -> None:
    path, whole = tmp_path / "guard.json", pairs(40)
    assert Guard(path, policy(base, max_items=24)).items(whole) == 40
    with pytest.raises(Refused, match="some earlier contribution"):
        Guard(path, policy(base, max_items=25, version=2)).items(whole)
    assert Guard(path, policy(base, max_items=32, version=3)).items(whole) == 40


@pytest.mark.parametrize("count", [0, 1, 4, 23])
def test_of_few_items_nothing_is_told(tmp_path: Path, base: BaseModel, count: int) -> None:
    with pytest.raises(Refused, match="at least 24"):
        Guard(tmp_path / "guard.json", policy(base)).items(pairs(count))
