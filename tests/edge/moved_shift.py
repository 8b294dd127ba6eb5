"""A shift that does something, for tests that compare fast and slow paths."""

import torch

from fedperfit.protocol.shift.shift import Shift


def moved(shape, seed: int) -> Shift:
    """The identity start of `seed`, moved away from the identity."""
    generator = torch.Generator().manual_seed(seed)
    shift = Shift.identity(shape, seed=seed)
    with torch.no_grad():
        shift.W += 0.05 * torch.randn(shift.W.shape, generator=generator)
        shift.b += torch.randn(shift.b.shape, generator=generator)
    return shift.requires_grad_(True)
