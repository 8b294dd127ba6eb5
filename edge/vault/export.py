"""A personal shift in a file of its owner's, in the clear: only what the owner's own command asks for."""

import json
import os
from glob import escape
from pathlib import Path

from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.system.errors import InputError, refusal_of
from fedperfit.protocol.system.files import sweep, write_atomic

WARNING = (
    "This file is your personal shift in the clear. Whoever has it can tell much of what you wrote and like, "
    "and answer as you would. Nothing of fedperfit needs it; forgetting will not reach it."
)


def export_shift(vault: Vault, slot: str, file: Path) -> None:
    """Write the personal shift of a slot to a safetensors file that only its owner may read.

    Tensors R, W (layers, r, d) and b (layers, r) of h + (W h + b - R h) R; the metadata names layers,
    positions, task, base model, and the release on top of which it acts.

    Args:
        vault: The owner's vault.
        slot: Name of the shift's slot.
        file: New file.

    Raises:
        InputError: The file exists or cannot be written, or there is no personal shift.
    """
    from safetensors.torch import save

    sweep(file.parent, escape(file.name))  # a killed export leaves a shift in the clear, by a name of its own
    if os.path.lexists(file):
        raise InputError(f"{file}: already exists")
    stored, shift = vault.open(slot)
    key = stored.shift_key
    about = {
        "layers": list(shift.shape.layers),
        "positions": str(shift.shape.positions),
        "task": key.task,
        "fingerprint": key.fingerprint,
        "release": key.release,
        "additive": key.additive,
    }
    tensors = {name: getattr(shift, name).detach().cpu().contiguous() for name in ("R", "W", "b")}
    try:
        write_atomic(file, save(tensors, metadata={"fedperfit": json.dumps(about, ensure_ascii=False)}))
    except OSError as error:
        raise InputError(refusal_of(error)) from None
