"""Groups of people who are trained side by side keep to the memory there is."""

import math
from dataclasses import replace

import pytest
import torch
from tests.edge.edge_clients import write_client
from tests.edge.random_items import examples_of

from fedperfit.edge.agent import side_by_side
from fedperfit.edge.agent.agent import Agent, personalize
from fedperfit.edge.agent.side_by_side import cohorts
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError


@pytest.fixture
def jobs(shape) -> list[FitJob]:
    return [
        FitJob(PersonalShift.start(shape, seed=n), examples_of(4, n, prefix=9), str(n)) for n in range(10)
    ]


def test_cohorts_keep_order_and_fit_the_budget(base, shape, training, jobs):
    one = ItemCache(base)
    one.prepare([jobs[0].examples], shape.layers[0], shape.positions)
    small = ItemCache(base, budget=int(4.2 * one.bytes))
    found = list(cohorts(iter(jobs), training, small))
    assert [job for cohort in found for job in cohort] == jobs
    assert 2 <= len(found[0]) <= 4
    for cohort in found:
        fit(cohort, training, small)
        assert 0 < small.bytes <= small.budget
    assert len(list(cohorts(jobs, training, ItemCache(base)))) == 1


@pytest.mark.parametrize("positions", ["l7", "f7+l7"])
@pytest.mark.parametrize("people", [1, 4])
def test_what_a_step_takes_is_reckoned_within_a_factor_of_two(base, shape, training, jobs, positions, people):
    placed = replace(shape, positions=Positions.parse(positions))
    some = [replace(job, shift=PersonalShift.start(placed, seed=0)) for job in jobs[:people]]
    reckoned = sum(side_by_side.needs(job, training, ItemCache(base))[2] for job in some)
    held = held_by_a_step(base, training, some)
    assert held / 1.1 <= reckoned <= 2 * held


def test_cohorts_keep_a_step_within_its_room(base, training, jobs, monkeypatch):
    _, _, alone = side_by_side.needs(jobs[0], training, ItemCache(base))
    monkeypatch.setattr(side_by_side, "_STEP_BYTES", (int(3.3 * alone), 0))
    found = list(cohorts(iter(jobs), training, ItemCache(base)))
    assert [job for cohort in found for job in cohort] == jobs
    assert max(map(len, found)) == 3
    monkeypatch.setattr(side_by_side, "_STEP_BYTES", (0, 0))
    assert [len(cohort) for cohort in cohorts(jobs, training, ItemCache(base))] == [1] * len(jobs)


def held_by_a_step(base, training, jobs) -> int:
    """Bytes of distinct tensors that a training step keeps for its gradient, model left out."""
    weights = {weight.untyped_storage().data_ptr() for weight in base.model.parameters()}
    held: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = max(held.get(storage.data_ptr(), 0), storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        fit(jobs, training.replace(epochs=1, batch_size=len(jobs[0].examples)), ItemCache(base))
    return sum(held.values())


def test_a_loss_that_is_not_finite_costs_its_person_alone(
    base, shape, header, personal, training, tmp_path, monkeypatch
):
    def spoiled(jobs, *arguments, **more):
        fits = fit(jobs, *arguments, **more)
        return [fits[0], replace(fits[1], loss=math.nan), *fits[2:]]

    monkeypatch.setattr(side_by_side, "fit", spoiled)
    agents = [Agent(write_client(tmp_path / name, items=4, questions=1), base) for name in "abc"]
    packed = pack(Shift.identity(shape, seed=0), header)
    results = dict(personalize(agents, packed, personal, training, ItemCache(base)))
    told = [isinstance(results[agent], InputError) for agent in agents]
    assert told == [False, True, False]
    assert "the loss is not finite" in str(results[agents[1]])
    assert [len(agent.vault.slots()) for agent in agents] == [1, 0, 1]
