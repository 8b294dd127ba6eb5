"""Where personal shifts are kept: one file per slot in the client's own folder, owner-only."""

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from edge.personal import PersonalShift
from protocol.errors import InputError
from protocol.files import write_atomic
from protocol.positions import Positions
from protocol.shift import ShiftShape

FORMAT = 1


@dataclass(frozen=True)
class Belonging:
    """What a personal shift fits: it is refused on top of anything else."""

    task: str
    fingerprint: str
    """Of the base model."""
    release: str
    """SHA-256 of the packed collective shift beneath it."""
    additive: bool


class Vault:
    """Personal shifts of one person, by slot name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def store(self, slot: str, shift: PersonalShift, belonging: Belonging) -> None:
        """Replace slot `slot` atomically."""
        shape = shift.shape
        metadata = {
            "format": FORMAT,
            "layers": list(shape.layers),
            "rank": shape.rank,
            "hidden_size": shape.hidden_size,
            "positions": str(shape.positions),
            **vars(belonging),
        }
        tensors = {"R": shift.R, "W": shift.W, "b": shift.b}
        data = safetensors.torch.save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            {"personal": json.dumps(metadata, sort_keys=True)},
        )
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(self._path(slot), data)

    def load(self, slot: str, belonging: Belonging) -> PersonalShift:
        """The shift in `slot`; raises InputError when missing, broken, or made for something else."""
        path = self._path(slot)
        if not path.is_file():
            raise InputError(f"no personal shift in slot {slot!r}: personalize first")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = json.loads(file.metadata()["personal"])
                tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in ("R", "W", "b")}
            kept = Belonging(**{name: metadata[name] for name in vars(belonging)})
            shape = ShiftShape(
                layers=tuple(metadata["layers"]),
                rank=metadata["rank"],
                hidden_size=metadata["hidden_size"],
                positions=Positions.parse(metadata["positions"]),
            )
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise InputError(f"the personal shift in slot {slot!r} is broken") from None
        if metadata["format"] != FORMAT or kept != belonging:
            raise InputError(f"the personal shift in slot {slot!r} belongs to another release or base model")
        return PersonalShift(shape, **tensors)

    def _path(self, slot: str) -> Path:
        return self.folder / f"{slot}.safetensors"
