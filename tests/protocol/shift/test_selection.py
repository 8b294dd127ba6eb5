"""Layers, ranks and starts that are planted in people's layer gradients are found."""

import pytest
import torch

from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.selection import LayerGradient, least_rank, relevance, select_layers, warm_start
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.system.errors import InputError

DEPTH, SIZE = 6, 24


def layer_gradients(
    rank: int, strong: tuple[int, ...] = (1, 4), people: int = 30, noise: float = 0.01
) -> list[LayerGradient]:
    """Gradients in the same `rank` directions of equal energy, ten times as long in the strong layers."""
    start = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(SIZE, rank, generator=start)).Q.T
    size = torch.ones(DEPTH, 1)
    size[list(strong)] = 10.0
    return [
        LayerGradient(
            size
            * (
                torch.randn(DEPTH, rank, generator=start) @ axes
                + noise * torch.randn(DEPTH, SIZE, generator=start)
            ),
            torch.full((DEPTH,), 2.0),
            4,
        )
        for _ in range(people)
    ]


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_planted_layers_and_rank_are_chosen(rank):
    chosen = select_layers(layer_gradients(rank), share=0.97)
    assert chosen.layers == (1, 4)
    assert chosen.rank == rank


def test_the_least_rank_of_given_layers_is_that_of_the_worst():
    flat, steep = layer_gradients(5), layer_gradients(1, noise=0.0)
    mixed = [
        LayerGradient(torch.cat([one.gradient[:3], other.gradient[3:]]), one.length, 4)
        for one, other in zip(steep, flat, strict=True)
    ]
    ranks = [least_rank(mixed, layers, share=0.97) for layers in ((0, 1), (4, 5), (0, 4))]
    assert ranks == [1, 5, 5]
    assert least_rank(flat, (1,), share=0.1) == 1


def test_what_matters_is_the_gradient_in_lengths_of_the_states():
    some = layer_gradients(2)
    twice = [
        LayerGradient(layer_gradient.gradient / 2, layer_gradient.length * 2, layer_gradient.pairs)
        for layer_gradient in some
    ]
    torch.testing.assert_close(relevance(some), relevance(twice))
    assert relevance(some).argsort(descending=True)[:2].sort().values.tolist() == [1, 4]


def test_a_person_counts_as_often_as_they_have_pairs():
    one, other = layer_gradients(3, people=2)
    heavy = LayerGradient(one.gradient, one.length, 2 * one.pairs)
    torch.testing.assert_close(relevance([heavy, other]), relevance([one, one, other]))


def test_a_warm_start_moves_down_the_mean_gradient():
    some = layer_gradients(3)
    shape = ShiftShape(layers=(1, 4), rank=4, hidden_size=SIZE, positions=Positions.parse("l7"))
    shift = warm_start(some, shape, step=0.1, seed=0)
    hidden = torch.randn(5, SIZE)
    for index, layer in enumerate(shape.layers):
        torch.testing.assert_close(shift.R[index] @ shift.R[index].T, torch.eye(4), atol=1e-5, rtol=0)
        moved = shift.delta(index, hidden).detach()
        mean = torch.stack([layer_gradient.gradient[layer] for layer_gradient in some]).mean(0)
        expected = -0.1 * 2.0 * mean / mean.norm()
        torch.testing.assert_close(moved, expected.expand(5, -1), atol=0.02, rtol=0)
    still = warm_start(some, shape, step=0.0, seed=0)
    assert not still.delta(0, hidden).any()


def test_nobody_makes_a_warm_start_long_by_their_word():
    some = layer_gradients(3, people=5)
    liar = LayerGradient(some[0].gradient, torch.full((DEPTH,), 1e6), some[0].pairs)
    shape = ShiftShape(layers=(1,), rank=4, hidden_size=SIZE, positions=Positions.parse("l7"))
    honest, lied = (warm_start([one, *some[1:]], shape, step=0.1, seed=0) for one in (some[0], liar))
    assert torch.equal(honest.b, lied.b)


def test_fewer_people_than_ranks_leave_the_rest_random():
    shape = ShiftShape(layers=(1,), rank=8, hidden_size=SIZE, positions=Positions.parse("l7"))
    shift = warm_start(layer_gradients(3, people=2), shape, step=0.1, seed=0)
    torch.testing.assert_close(shift.R[0] @ shift.R[0].T, torch.eye(8), atol=1e-5, rtol=0)


def test_nobody_or_too_many_layers_are_refused():
    with pytest.raises(InputError, match="nobody"):
        select_layers([])
    with pytest.raises(InputError, match="layers=7"):
        select_layers(layer_gradients(2), layers=7)
