"""What moves the odds of a task's labels, against the slow way."""

from itertools import islice

import pytest
import torch

from fedperfit.edge.engine.examples import encode
from fedperfit.edge.fitting.choice import Intervention, losses
from fedperfit.protocol.model.base_model import BaseModel, load
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.tasks import TASKS, Pair
from fedperfit.simulation.basis.odds import label_gradients
from fedperfit.simulation.world.build import population_pairs

LABELS = ("fantasy", "based on a book", "comedy")
STEP = 0.05


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load("embedded", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def basis(base: BaseModel) -> Basis:
    shape = ShiftShape((3, 7), 4, base.card.hidden_size, Positions.parse("l7"))
    return random_basis(shape, 3, task="LaMP_2M", fingerprint=base.card.fingerprint, seed=0)


def test_they_are_those_of_whole_rows_with_a_shift_injected(base: BaseModel, basis: Basis) -> None:
    prompts = [pair.prompt for pair, _ in islice(population_pairs(TASKS["LaMP_2M"], 0), 2)]
    examples = [encode(base, [Pair(prompt, label) for label in LABELS]) for prompt in prompts]

    def scores(numbers: torch.Tensor) -> torch.Tensor:
        shift = Coordinates.of(basis, numbers).shift()
        rows = [losses(base, some, Intervention([shift])) for some in examples]
        tokens = torch.tensor([[len(example.target) for example in some] for some in examples])
        return -(torch.stack(rows) * tokens).mean(0).double()

    gradients = label_gradients(base, basis, LABELS, prompts)
    for seed in range(3):
        way = torch.randn(basis.numbers, generator=torch.Generator().manual_seed(seed))
        slope = (scores(STEP * way) - scores(-STEP * way)) / (2 * STEP)
        torch.testing.assert_close(gradients @ way.double(), slope, rtol=0.03, atol=0.02)
