"""Numbers that a model's weights may hold: with one that is not finite, answers are nonsense at best."""

import torch


def strange_weights(model: torch.nn.Module) -> str:
    """Return the name of the first weights that are not all finite numbers; empty where all are.

    Each is read once, where it lies, and nothing of its size is made beside it.

    Args:
        model: The model, of whatever kind.
    """
    for name, weights in model.named_parameters():
        known = weights.is_floating_point() and weights.numel() and not weights.is_meta
        if known and not _finite(weights):
            return name
    return ""


def _finite(weights: torch.Tensor) -> bool:
    """Whether the least and the greatest number are finite; what is not a number is both."""
    return bool(torch.stack(torch.aminmax(weights)).isfinite().all())
