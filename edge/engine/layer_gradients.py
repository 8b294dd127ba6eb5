"""What a layer's output is and how the loss depends on it, without training anything.

The gradient is taken with respect to a constant added at the shifted positions after each decoder layer: one
backward pass gives all layers. It is the direction that a shift's b learns first.
"""

from collections.abc import Sequence

import torch

from fedperfit.edge.engine.examples import Example, encode
from fedperfit.edge.engine.rows import collate, row_losses
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.layers import changing, decoder_layers
from fedperfit.protocol.shift.basis_sources import StateMoments
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.selection import LayerGradient
from fedperfit.protocol.tasks import Pair


def layer_gradient(
    base: BaseModel, pairs: Sequence[Pair], positions: Positions, batch_size: int = 8
) -> LayerGradient:
    """Gradient of the mean loss on a person's pairs with respect to each layer's output.

    Args:
        base: the frozen model.
        pairs: at least one training pair.
        positions: shifted tokens of each prompt.
        batch_size: pairs per backward pass.

    Returns:
        Gradients (layers, d), mean lengths (layers,) of the hidden states at the positions, and the number
        of pairs.
    """
    examples = sorted(encode(base, pairs), key=lambda e: len(e.prompt) + len(e.target))
    layers = range(len(decoder_layers(base.model)))
    gradient = torch.zeros(len(layers), base.card.hidden_size, device=base.device)
    length = torch.zeros(len(layers), device=base.device)
    for start in range(0, len(examples), batch_size):
        some = examples[start : start + batch_size]
        offset = torch.zeros_like(gradient, requires_grad=True)
        loss, lengths = _loss(base, some, positions, layers, offset)
        (part,) = torch.autograd.grad(loss, offset)
        gradient += part * len(some) / len(examples)
        length += lengths * len(some) / len(examples)
    return LayerGradient(gradient.cpu(), length.cpu(), len(examples))


def _loss(
    base: BaseModel, examples: Sequence[Example], positions: Positions, layers: range, offset: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over rows of each row's mean cross-entropy, and mean length (layers,) of the shifted states.

    offset: (layers, d), added at the positions after each layer.
    """
    batch = collate(examples, base.device)
    shifted = positions.mask(batch.prompt[:, :-1])
    lengths = torch.zeros(len(layers), device=base.device)

    def change(layer: int, hidden: torch.Tensor) -> torch.Tensor:
        lengths[layer] = hidden.detach()[shifted].float().norm(dim=-1).mean()
        return hidden + shifted[..., None] * offset[layer].to(hidden.dtype)

    with torch.enable_grad(), changing(base.model, layers, change):
        return row_losses(base.model, batch).mean(), lengths


@torch.no_grad()
def state_moments(
    base: BaseModel, pairs: Sequence[Pair], positions: Positions, layers: Sequence[int], batch_size: int = 8
) -> StateMoments:
    """Mean and covariance of the outputs of some layers at the shifted positions.

    Args:
        base: the frozen model.
        pairs: at least one training pair.
        positions: shifted tokens of each prompt.
        layers: decoder layers, counted from 0.
        batch_size: pairs per forward pass.
    """
    examples = sorted(encode(base, pairs), key=lambda e: len(e.prompt) + len(e.target))
    size = base.card.hidden_size
    sums = torch.zeros(len(layers), size, dtype=torch.double)
    products = torch.zeros(len(layers), size, size, dtype=torch.double)
    count = 0
    for start in range(0, len(examples), batch_size):
        batch = collate(examples[start : start + batch_size], base.device)
        shifted = positions.mask(batch.prompt[:, :-1])
        count += int(shifted.sum())

        def record(layer: int, hidden: torch.Tensor, shifted: torch.Tensor = shifted) -> torch.Tensor:
            states = hidden[shifted].double().cpu()
            sums[layers.index(layer)] += states.sum(0)
            products[layers.index(layer)] += states.T @ states
            return hidden

        with changing(base.model, layers, record):
            row_losses(base.model, batch)
    mean = sums / count
    return StateMoments(mean, products / count - mean[:, :, None] * mean[:, None, :])
