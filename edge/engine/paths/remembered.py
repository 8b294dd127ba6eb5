"""Paths that were found right, in the user's cache, so that a model is checked once per machine."""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path as File

import torch
import transformers

from fedperfit.edge.engine.paths.path import Path, Paths
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.system.files import user_cache, write_atomic

_LAYOUT = 1
"""Number of the check; another one checks anew."""


@dataclass(frozen=True)
class Remembered:
    """The file that holds the paths of one model with shifts at given places."""

    file: File | None
    """File in the user's cache; None for a model without a fingerprint."""

    @classmethod
    def of(cls, base: BaseModel, where: tuple[object, ...]) -> "Remembered":
        """Name the file by everything that the paths depend on.

        Args:
            base: the frozen model.
            where: layers and positions of the shifts.
        """
        if not base.card.fingerprint:
            return cls(None)
        model = base.model
        seen = (
            *(_LAYOUT, base.card.fingerprint, *where, str(model.dtype), base.device.type),
            *(model.config._attn_implementation, torch.__version__, transformers.__version__),
            version("fedperfit"),
        )
        name = hashlib.sha256(repr(seen).encode()).hexdigest()[:32]
        return cls(user_cache("paths") / f"{name}.json")

    def read(self) -> Paths | None:
        """The remembered paths; None where there are none that can be read."""
        if self.file is None:
            return None
        try:
            fields = json.loads(self.file.read_text(encoding="utf-8"))
            training, labels, text = (Path(fields[work]) for work in ("training", "labels", "text"))
            return Paths(training, labels, text, str(fields["told"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, paths: Paths) -> None:
        """Remember paths, where the cache can be written.

        Args:
            paths: what was found right.
        """
        if self.file is None:
            return
        fields = {"training": paths.training, "labels": paths.labels, "text": paths.text}
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({**{work: way.value for work, way in fields.items()}, "told": paths.told})
            write_atomic(self.file, text.encode())
        except OSError:
            return
