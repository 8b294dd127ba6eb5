"""Numbers that a model's weights may hold: with one that is not finite, answers are nonsense at best."""

from collections.abc import Iterable

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


def named_alike(names: Iterable[str], model: torch.nn.Module) -> str:
    """Return the first of some stored tensors that is one of a model's weights; empty where none is.

    Args:
        names: Names in a file, which may lack or have a prefix beside the model's.
        model: The model that was loaded from it.
    """
    known = [f".{name}" for name, _ in model.named_parameters()]
    dotted = [f".{name}" for name in names]
    return next((a[1:] for a in dotted for b in known if a.endswith(b) or b.endswith(a)), "")
