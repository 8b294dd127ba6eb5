"""A layer gradient is the gradient of the loss with respect to a constant added at the shifted positions."""

import torch

from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.layer_gradients import layer_gradient
from fedperfit.edge.fitting.choice import Intervention, losses
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.tasks import Pair

PAIRS = [Pair(f"A tale of {n} kings and {'a storm ' * n}\n", "fantasy") for n in range(1, 4)]


def test_it_is_the_slope_of_the_loss(precise):
    """Against a shift that adds a small constant: W = R, b = c."""
    found = layer_gradient(precise, PAIRS, Positions.parse("l7"), batch_size=2)
    assert found.pairs == 3
    examples = encode(precise, PAIRS)
    for layer in (1, 5):
        shape = ShiftShape(layers=(layer,), rank=1, hidden_size=192, positions=Positions.parse("l7"))
        values = []
        for size in (0.02, -0.02):
            shift = Shift.identity(shape, seed=0).double()
            with torch.no_grad():
                shift.b += size
            acting = Intervention([shift.requires_grad_(False)])
            values.append(float(losses(precise, examples, acting).mean()))
        slope = (values[0] - values[1]) / 0.04
        expected = float(found.gradient[layer] @ shift.R[0, 0].float())
        assert abs(slope - expected) < 1e-5 + 0.01 * abs(expected)


def test_it_depends_neither_on_batches_nor_on_order(precise):
    at = Positions.parse("f2+l3")
    whole, singly = (
        layer_gradient(precise, PAIRS, at, batch_size=8),
        layer_gradient(precise, PAIRS[::-1], at, batch_size=1),
    )
    torch.testing.assert_close(whole.gradient, singly.gradient, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(whole.length, singly.length, rtol=1e-4, atol=1e-4)
    assert whole.gradient.shape == (8, 192)
