"""A small shift in a vault, and what lies on disk then."""

import torch

from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.edge.vault.stored_shift import FitRecord, ShiftKey
from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape

SHIFT_KEY = ShiftKey(task="LaMP_2M", fingerprint="f", release="r", additive=False)
SHAPE = ShiftShape(layers=(1,), rank=1, hidden_size=3, positions=Positions.parse("l7"))
ACCOUNT = FitRecord(items=3)


def small(seed: int = 1) -> PersonalShift:
    shift = PersonalShift.start(SHAPE, seed=seed)
    with torch.no_grad():
        shift.b.fill_(seed)
    return shift


def files(vault: Vault) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in sorted(vault.folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
