"""C1: a cloud reads a person's history out of `contribute`.

It asks for the one step of training whose result is the gradient of W on every token of one item: layer 0,
full rank, all positions, R and W next to nothing, so that Adam's step can be undone. The gradient's rows span
the states of all tokens, and the text is spelled out by what fits into their span.
"""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tests.attacks.cloud_requests import Edge, policy, read_tokens, shape, span, training

from fedperfit.edge.consent.guard import Guard
from fedperfit.edge.consent.refusal import Refused
from fedperfit.edge.engine.examples import Example
from fedperfit.protocol.model.base_model import BaseModel, load
from fedperfit.protocol.shift.packing import unpack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.tasks import Pair

RATE, CLIP, EPSILON = 1e8, 1e-9, 1e-8
GREEDY = {
    "epochs": 1,
    "batch_size": 1,
    "learning_rate": RATE,
    "weight_decay": 0.0,
    "clip_norm": CLIP,
    "max_items": 1,
}
"""Settings of the one step that can be undone."""


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load("embedded", device="cpu", dtype="float32")


def inverting(base: BaseModel) -> Shift:
    """A shift of full rank on every token of layer 0 that does nothing, with a gradient that tells all."""
    d = base.card.hidden_size
    nothing = 1e-9 * torch.eye(d)[None]
    where = shape(base, layers=(0,), rank=d, positions=Positions.parse("f9999"))
    return Shift(where, R=nothing, W=nothing.clone(), b=torch.zeros(1, d))


def field_places(example: Example, instruction: int) -> range:
    """Positions of the person's own words in a prompt."""
    return range(instruction, len(example.prompt) - 1)


def instruction_tokens(examples: list[Example]) -> int:
    """Tokens that all prompts begin with."""
    first, *others = [example.prompt for example in examples]
    return next(n for n, token in enumerate(first) if any(other[n] != token for other in others))


def test_without_a_guard_one_update_spells_out_an_item(tmp_path: Path, base: BaseModel) -> None:
    edge = Edge.make(tmp_path, base, guarded=False)
    before = inverting(base)
    after, _ = unpack(edge.contribute(before, training(**GREEDY)))
    step = (after.W - before.W)[0].detach().double() / RATE
    gradient = EPSILON * step / (1 - step.abs()).clamp(min=1e-12)
    examples = edge.examples(8)
    latest = examples[-1]
    places = field_places(latest, instruction_tokens(examples))
    assert len(places) > 8
    assert read_tokens(base, span(gradient), latest, 0, places) > 0.95


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


def test_within_the_policy_few_tokens_are_read(tmp_path: Path, base: BaseModel) -> None:
    """Eight updates of shifts that the cloud chooses at random within the policy, read together.

    Measured: 14 % of the tokens at shifted positions, by a reader that knows all tokens before each one;
    guessing gives 0.5 %, and without a guard all are read.
    """
    edge = Edge.make(tmp_path, base, guarded=True)
    steps = []
    for number in range(8):
        before = Shift.identity(shape(base), seed=number)
        settings = training(learning_rate=4e-2, clip_norm=0.25, weight_decay=0.0)
        after, _ = unpack(edge.contribute(before, settings))
        steps.append((after.W - before.W)[0].detach())
    examples = edge.examples(24)
    shared = instruction_tokens(examples)
    for most in (8, 64):
        directions = span(torch.cat(steps), most=most)
        read = [
            read_tokens(base, directions, example, 3, list(field_places(example, shared))[-6:])
            for example in examples[:4]
        ]
        assert sum(read) / len(read) < 0.25


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


@pytest.mark.parametrize("count", [0, 1, 4, 23])
def test_of_few_items_nothing_is_told(tmp_path: Path, base: BaseModel, count: int) -> None:
    with pytest.raises(Refused, match="at least 24"):
        Guard(tmp_path / "guard.json", policy(base)).items(pairs(count))
