"""Delta-vectors on file, a file per user, so that a stopped study goes on with the users that are left."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fedperfit.protocol.system.errors import MalformedFileError
from fedperfit.protocol.system.files import write_atomic
from fedperfit.simulation.analyze.vectors import TEXTS

Vectors = dict[str, torch.Tensor]
"""A user's delta-vectors by kind of text: (layers, d) in fp32."""


class KeptVectors:
    """The vectors of a task's users, numbered in the order of the study."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; it need not be there.

        Args:
            folder: Folder of the task's vectors.
        """
        self._folder = folder

    def keep(self, user: int, vectors: Mapping[str, torch.Tensor]) -> None:
        """Write a user's vectors, whole or not at all.

        Args:
            user: The user's number.
            vectors: The vectors, (layers, d) by kind of text.
        """
        write_atomic(self._file(user), save({kind: vector.contiguous() for kind, vector in vectors.items()}))

    def read(self, user: int) -> Vectors | None:
        """Read a user's vectors; None where there are none yet.

        Args:
            user: The user's number.

        Raises:
            MalformedFileError: The file holds something else.
        """
        file = self._file(user)
        if not file.exists():
            return None
        try:
            vectors = load(file.read_bytes())
        except SafetensorError as error:
            raise MalformedFileError(f"{file}: {error}") from None
        if set(vectors) != set(TEXTS):
            raise MalformedFileError(f"{file}: holds no delta-vectors")
        return {kind: vectors[kind] for kind in TEXTS}

    def _file(self, user: int) -> Path:
        return self._folder / f"{user}.safetensors"
