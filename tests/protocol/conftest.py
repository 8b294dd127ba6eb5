import pytest
import torch

from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift


@pytest.fixture(autouse=True)
def _repeatable():
    """Every test draws the same random numbers, on one thread: its matrices are too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_shift():
    """Random shifts far from the identity: orthonormal R, free W and b."""

    def make(layers, rank, hidden_size, positions="l3", seed=0) -> Shift:
        shape = ShiftShape(
            layers=tuple(layers), rank=rank, hidden_size=hidden_size, positions=Positions.parse(positions)
        )
        shift = Shift.identity(shape, seed=seed)
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            shift.W.add_(torch.randn(shift.W.shape, generator=generator) * 0.3)
            shift.b.add_(torch.randn(shift.b.shape, generator=generator))
        return shift

    return make
