"""A row whose clients train a shift of hidden states, in a federation as `fedperfit simulate` runs it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.slab import Stack
from fedperfit.protocol.messages.ledger import Entry, Ledger
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.files import from_home, write_atomic
from fedperfit.simulation.basis.public import make_basis, pairs_of_file, world_pairs
from fedperfit.simulation.communication.row import Asked, Row
from fedperfit.simulation.run.in_process import run_federation
from fedperfit.simulation.run.settings import RunSettings

_PHASES = ("pulls.jsonl", "train.jsonl")
"""Ledgers of a training: what its basis was made of, if of anything the clients sent, and its rounds."""
_BASIS = "public.basis"
"""File in a training's folder with the basis that its settings name."""


class ShiftRow(Row):
    """Shifts of hidden states, trained in rounds and averaged by the cloud's own aggregation.

    Attributes:
        shift: The collective shift after the last round.
    """

    update: ClassVar[Mapping[str, Any]] = {}
    """Settings of the federation by key that make this row differ from whole shifts in fp32."""
    shift: Shift

    def learn(self, clients: Sequence[History], folder: Path) -> list[Entry]:
        """Train the collective shift."""
        overrides = self.overrides()
        if self.public:
            write_atomic(folder / _BASIS, self._public_basis())
            overrides["basis-file"] = str(folder / _BASIS)
        preset = self.settings.preset
        result = run_federation(clients, preset=preset, settings=overrides, folder=folder)
        self.shift = result.shift.to(self.context.base.device)
        return [entry for phase in _PHASES for entry in Ledger(folder / "ledger" / phase).entries()]

    def answer(self, people: Sequence[Asked]) -> list[list[str]]:
        """Answer by the collective shift."""
        stack = Stack([self.shift], None, False)
        return self.answered_alike(people, lambda prompts: self.context.answer(prompts, stack))

    def overrides(self) -> dict[str, Any]:
        """Return the federation's settings on top of the preset, by key."""
        settings = self.settings
        return {
            "base-model": settings.base_model,
            "data": settings.data,
            "device": settings.device,
            "dtype": settings.dtype,
            "prompt-form": settings.prompt_form,
            "seed": self.context.seed,
            "rounds": self.rounds,
            "clients-per-round": settings.clients_per_round,
            "collective-epochs": self.epochs,
            "collective-learning-rate": self.rates.shared,
            "collective-max-items": settings.collective_items,
            **self.update,
        }

    def job(self) -> RunSettings:
        """Return all settings of the federation."""
        task = self.context.task.reference
        return RunSettings.read(self.settings.preset, {**self.overrides(), "task": task})

    def _public_basis(self) -> bytes:
        job, context = self.job(), self.context

        def make() -> bytes:
            file = self.settings.public_items
            pairs = pairs_of_file(from_home(file), job) if file else world_pairs(job)
            return make_basis(context.base, job, pairs).to_bytes()

        about = [repr(job.shape(context.base.card)), job.update_columns, job.seed, self.settings.public_items]
        return context.keep("bases/public", about, make)
