import pytest
import torch
from tests.simulation.benchmark.benchmark_cases import tiny_base, tiny_workload

from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.simulation.benchmark.contenders import Contender
from fedperfit.simulation.benchmark.ours import engine, plain
from fedperfit.simulation.benchmark.workload import make_examples


@pytest.mark.parametrize("positions", ["l7", "f7+l7"])
def test_plain_path_and_engine_fit_the_same_shifts(positions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, workload = tiny_base(), tiny_workload(positions=positions, personal_learning_rate=1e-3)
    users = list(make_examples(base, workload))
    start = PersonalShift.start
    made: list[PersonalShift] = []

    def spy(shape: ShiftShape, *, seed: int) -> PersonalShift:
        made.append(start(shape, seed=seed))
        return made[-1]

    monkeypatch.setattr(PersonalShift, "start", spy)

    def fitted(contender: Contender) -> list[torch.Tensor]:
        made.clear()
        assert contender(base, users, workload) == 4 * made[0].shape.parameters
        assert len(made) == workload.users
        return [tensor.detach().clone() for shift in made for tensor in (shift.R, shift.W, shift.b)]

    for ours, oracle in zip(fitted(engine), fitted(plain), strict=True):
        assert torch.allclose(ours, oracle, atol=1e-4)
