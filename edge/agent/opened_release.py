"""A collective shift as the cloud sent it, opened for use with a base model."""

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from fedperfit.edge.vault.stored_shift import ShiftKey
from fedperfit.protocol.messages.settings import Stage
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.people.people import People
from fedperfit.protocol.shift.directions import Directions, editing
from fedperfit.protocol.shift.packing import MAGIC, ShiftHeader, unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.release_file import parse_release


@dataclass(frozen=True)
class OpenedRelease:
    """A collective shift as the cloud sent it, unpacked and checked."""

    shift: Shift
    header: ShiftHeader
    digest: str
    """SHA-256 of the packed shift, in hexadecimal digits."""
    directions: Directions | None = None
    """Directions of the group, where the release carries them."""
    people: People | None = None
    """Basis of personal shifts and prior over people, where the release carries them."""

    @classmethod
    def of(cls, packed: bytes, base: BaseModel) -> "OpenedRelease":
        """Unpack a shift, or the release that holds it.

        Args:
            packed: packed shift, or a release whose signature the caller has checked.
            base: base model it is to be used with.

        Raises:
            InputError: the shift is broken, not finite, or for another base model.
        """
        directions, people = None, None
        if not packed.startswith(MAGIC):
            release = parse_release(packed)
            packed, directions, people = release.packed, release.directions, release.people
        shift, header = unpack(packed)
        if not base.card.known_as(header.fingerprint):
            raise InputError("the collective shift is for another base model")
        if not all(torch.isfinite(tensor).all() for tensor in shift.parameters()):
            raise InputError("the collective shift is not finite")
        return cls(shift, header, hashlib.sha256(packed).hexdigest(), directions, people)

    def copy(self) -> Shift:
        """A copy of the shift, to be trained."""
        return self.shift.copy()

    def frozen(self, base: BaseModel) -> Shift:
        """The shift itself on the model's device, without gradients: personal shifts act on top of it."""
        return self.shift.requires_grad_(False).to(base.device)

    def edit(self, stage: Stage) -> Directions | None:
        """Directions that edit the model at a stage, if any do; raises InputError where they are missing."""
        if stage is not Stage.DIRECTIONS:
            return None
        if self.directions is None:
            raise InputError("the release carries no directions")
        return self.directions

    def edited(self, base: BaseModel, stage: Stage) -> AbstractContextManager[None]:
        """Inside the block the model's MLPs are edited by the release's directions, where the stage has them.

        Args:
            base: model to be edited.
            stage: base, collective, directions or personal.
        """
        directions = self.edit(stage)
        return nullcontext() if directions is None else editing(base.model, directions.to(base.device))

    def shift_key(self, additive: bool) -> ShiftKey:
        """Key of the personal shifts that fit on top of this release."""
        return ShiftKey(self.header.task, self.header.fingerprint, self.digest, additive)
