"""Edited layers and directions, for every variant and ablation."""

import pytest
import torch

from fedperfit.edge.chameleon import identify
from fedperfit.edge.chameleon.identify import (
    Edit,
    Identify,
    ProbeKind,
    States,
    burns,
    directions,
    low_rank,
    moments_of_each,
)
from fedperfit.protocol.shift.probe import evaluate


def planted(pairs: int, layers: int = 4, size: int = 32, clear: int = 2) -> tuple[States, torch.Tensor]:
    """Pairs whose sides differ along u, s = +-1 times, by far the most clearly in layer `clear`."""
    start = torch.Generator().manual_seed(0)
    u = torch.nn.functional.normalize(torch.randn(size, generator=start), dim=0)
    s = torch.randint(0, 2, (1, pairs, 1), generator=start) * 2.0 - 1
    m = torch.randn(layers, 2, 1, size, generator=start)
    noise = torch.full((layers, 1, 1), 2.0)
    noise[clear] = 0.1

    def around(side: int, sign: float) -> torch.Tensor:
        return m[:, side] + sign * s * u + noise * torch.randn(layers, pairs, size, generator=start)

    return States(around(0, 1.0), around(1, -1.0)), u


def test_the_layer_with_the_lowest_loss_is_edited_along_what_is_planted_there():
    states, u = planted(60)
    found = directions([states], edited=1, seed=0)
    assert found is not None
    assert found.layers == (2,)
    assert abs(float(found.neutral[0] @ u)) > 0.99
    _, _, v = torch.linalg.svd(states.personalized[2])
    assert abs(float(found.personalized[0] @ v[0])) > 0.9999


@pytest.mark.parametrize("probe", ProbeKind)
def test_the_three_ways_to_identify(probe, monkeypatch):
    monkeypatch.setattr(identify, "EPOCHS", 20)
    states, _ = planted(30)
    ways = {way: directions([states], identify=way, probe=probe, edited=1, seed=0) for way in Identify}
    hybrid, svd, ccs = (ways[way] for way in Identify)
    assert hybrid is not None
    assert svd is not None
    assert ccs is not None
    assert torch.equal(hybrid.personalized, svd.personalized)
    assert torch.equal(hybrid.neutral, ccs.neutral)
    assert torch.equal(ccs.personalized, ccs.neutral)
    layer = svd.layers[0]
    v = torch.linalg.svd(states.neutral[layer]).Vh[0]
    assert abs(float(svd.neutral[0] @ v)) > 0.9999


def test_the_ablations_make_one_edit_each():
    states, _ = planted(30)
    both, gain, loss = (directions([states], edit=edit, edited=2, seed=0) for edit in Edit)
    assert both is not None
    assert gain is not None
    assert loss is not None
    assert both.layers == gain.layers == loss.layers
    assert torch.equal(gain.personalized, both.personalized)
    assert not gain.neutral.any()
    assert torch.equal(loss.neutral, both.neutral)
    assert not loss.personalized.any()


def test_a_group_of_one_is_that_person_and_empty_people_do_not_count():
    states, _ = planted(12)
    nobody = States(states.personalized[:, :0], states.neutral[:, :0])
    alone, among = (directions(people, edited=2, seed=0) for people in ([states], [nobody, states]))
    assert alone is not None
    assert among is not None
    assert torch.equal(alone.neutral, among.neutral)


@pytest.mark.parametrize("pairs", [0, 1])
def test_too_few_pairs_edit_nothing(pairs):
    states, _ = planted(4)
    few = States(states.personalized[:, :pairs], states.neutral[:, :pairs])
    assert directions([few], edited=2, seed=0) is None


def test_burns_probes_trained_together_are_those_trained_singly(monkeypatch):
    monkeypatch.setattr(identify, "EPOCHS", 100)
    states, _ = planted(10, layers=3)
    together = burns(states, 0)
    p, n = (side - side.mean(1, keepdim=True) for side in (states.personalized, states.neutral))
    start = torch.Generator().manual_seed(0)
    bound = 32**-0.5
    theta = (torch.rand(3, 32, 10, generator=start) * 2 - 1) * bound
    bias = (torch.rand(3, 1, 10, generator=start) * 2 - 1) * bound
    probes = []
    for restart in range(10):
        one = torch.cat([theta[1, :, restart], bias[1, :, restart]]).requires_grad_()
        optimizer = torch.optim.AdamW([one], lr=1e-3, weight_decay=0.01)
        for _ in range(100):
            whole = one.detach()[None, :, None]
            loss, gradient = evaluate(p[1:2], n[1:2], whole)
            one.grad = gradient[0, :, 0] / 10
            optimizer.step()
        loss, _ = evaluate(p[1:2], n[1:2], one.detach()[None, :, None])
        probes.append((float(loss) / 10, one.detach()))
    lowest, best = min(probes, key=lambda pair: pair[0])
    torch.testing.assert_close(together.loss[1].item(), lowest, rtol=1e-3, atol=1e-6)
    assert torch.cosine_similarity(together.theta[1], best[:-1], dim=0) > 0.999


def test_a_short_probe_in_few_directions_finds_what_a_free_one_misses():
    states, u = planted(40, layers=1, size=64, clear=0)
    short, free = low_rank([moments_of_each(states)], [states], 0), burns(states, 0)
    assert torch.cosine_similarity(short.theta[0], u, dim=0).abs() > 0.99
    assert torch.cosine_similarity(free.theta[0], u, dim=0).abs() < 0.9
