from dataclasses import replace

import pytest
from tests.simulation.benchmark.benchmark_cases import tiny_base, tiny_workload

from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.benchmark import cost_model
from fedperfit.simulation.benchmark.cost_model import TrainingLoad
from fedperfit.simulation.benchmark.workload import LENGTHS, Lengths

SEVEN_B = TrainingLoad(
    layers=32,
    first_layer=14,
    positions=Positions.parse("l7"),
    lengths=Lengths(shared=76, field=68, target=4),  # 144 tokens of prompt, 147 read
    users=2,
    items=3,
    batch_size=2,
    epochs=4,
)
FIRST = replace(SEVEN_B, positions=Positions.parse("f7+l7"))


def test_units_per_token_are_those_of_the_formulas() -> None:
    one = replace(SEVEN_B, users=1, items=1, epochs=1)
    assert cost_model.lora(one, checkpointing=True) == 96 * 147
    assert cost_model.lora(one) == 64 * 147
    assert cost_model.plain(one) == 49 * 147
    nothing_shared = replace(
        FIRST, users=1, items=1, epochs=1, lengths=Lengths(shared=0, field=144, target=4)
    )
    once = cost_model.engine(nothing_shared)
    twice = cost_model.engine(replace(nothing_shared, epochs=2))
    assert twice - once == 34 * 147
    assert once - (twice - once) == 15 * 147


def test_engine_with_last_positions() -> None:
    # per item 137 tokens of context, 76 of them shared by all, 61 its own, and 10 trained on
    building = 32 * (6 * 61 + 76) + 15 * 6 * 10
    assert cost_model.engine(SEVEN_B) == building + 34 * 4 * 6 * 10 == 23_204
    assert cost_model.plain(SEVEN_B) == 172_872


def test_engine_with_first_positions() -> None:
    # 71 tokens of each item's own; two users take 4 epochs of 2 steps
    training = 34 * (4 * 6 * 71 + 2 * 8 * 76)
    assert cost_model.engine(FIRST) == 15 * (6 * 71 + 76) + training == 106_810


def test_a_prompt_shorter_than_the_shifted_positions_has_no_context() -> None:
    load = replace(SEVEN_B, lengths=LENGTHS["LaMP_7"])  # 3 tokens of prompt, 26 read
    assert cost_model.engine(load) == 15 * 6 * 26 + 34 * 4 * 6 * 26


def test_a_load_is_read_off_workload_and_model() -> None:
    load = cost_model.load_of(tiny_workload(), tiny_base().card)
    assert (load.layers, load.first_layer, load.users, load.items) == (4, 1, 2, 6)
    assert (load.batch_size, load.epochs, str(load.positions)) == (4, 4, "f7+l7")


def test_a_shifted_layer_beyond_the_model_is_refused() -> None:
    with pytest.raises(InputError, match="first_layer=32"):
        replace(SEVEN_B, first_layer=32)
