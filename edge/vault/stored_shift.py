"""A personal shift as the vault keeps it: what its header says, and the bytes of its tensors.

What is said of it is known without torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape

if TYPE_CHECKING:
    from fedperfit.edge.vault.personal import PersonalShift


@dataclass(frozen=True)
class ShiftKey:
    """Task, base model and release a personal shift was fitted for; it is refused on top of any others."""

    task: str
    """Name of the task."""
    fingerprint: str
    """Fingerprint of the base model."""
    release: str
    """SHA-256 of the packed collective shift that was frozen while fitting."""
    additive: bool
    """Whether the shift acts on a layer's own output, not on what the collective shift made of it."""


@dataclass(frozen=True)
class FitRecord:
    """Record of how a personal shift was fitted."""

    items: int = 0
    """Number of items the shift was fitted on."""
    origin: str = "fitted"
    """Last change of the shift: `fitted`, `carried over` or `learned`."""
    version: int = 0
    """Version of the release the shift was fitted on; 0 where releases have no versions."""
    training: dict[str, Any] = field(default_factory=dict)
    """`TrainingSettings` of the fit, as a config."""
    stage: str = "personal"
    """Stage with the lowest held-out loss, as chosen by `edge.fitting.choice`."""
    judged: dict[str, float] = field(default_factory=dict)
    """Mean loss on held-out items by stage, in nats per target token, for each stage that could answer."""
    epsilon: float = 0.0
    """Differential privacy of the shift for each item, at `edge.fitting.form.DELTA`; 0 without a promise."""
    stored: str = ""
    """Time of storing, ISO 8601 in UTC; set by the vault."""


@dataclass(frozen=True)
class StoredShift:
    """Description of a stored personal shift, without its tensors."""

    shape: ShiftShape
    shift_key: ShiftKey
    fit_record: FitRecord
    writes: int
    """Number of times the slot was written."""

    def fields(self) -> dict[str, Any]:
        """Fields of the header that the shift is sealed under, but for its slot."""
        return {
            "layers": list(self.shape.layers),
            "rank": self.shape.rank,
            "hidden_size": self.shape.hidden_size,
            "positions": str(self.shape.positions),
            "writes": self.writes,
            **asdict(self.shift_key),
            **asdict(self.fit_record),
        }

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> "StoredShift":
        """Read a header; raises KeyError, TypeError or ValueError where it is not one of a shift.

        Args:
            header: fields as `fields` returns them, of which earlier versions left some out.
        """
        header = {"stage": "personal", "judged": {}, "epsilon": 0.0, **header}
        shape = ShiftShape(
            layers=tuple(header["layers"]),
            rank=header["rank"],
            hidden_size=header["hidden_size"],
            positions=Positions.parse(header["positions"]),
        )
        shift_key = ShiftKey(**{name: header[name] for name in ShiftKey.__dataclass_fields__})
        fit_record = FitRecord(**{name: header[name] for name in FitRecord.__dataclass_fields__})
        return cls(shape, shift_key, fit_record, header["writes"])


def tensor_bytes(shift: "PersonalShift") -> bytes:
    """Return the tensors of a shift as a safetensors file, without its shape."""
    from safetensors.torch import save

    tensors = {"R": shift.R, "W": shift.W, "b": shift.b}
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def shift_of(shape: ShiftShape, content: bytes) -> "PersonalShift":
    """Return the shift of a shape with the tensors of a safetensors file.

    Raises:
        ValueError: the file is none, or holds other tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from fedperfit.edge.vault.personal import PersonalShift

    try:
        tensors = load(content)
        return PersonalShift(shape, **{name: tensors[name] for name in ("R", "W", "b")})
    except (SafetensorError, KeyError) as error:
        raise ValueError(str(error)) from None
