"""A row whose clients train a LoRA of PEFT's (Hu et al., 2022) on the query and value projections."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch

from fedperfit.edge.agent.history import History
from fedperfit.protocol.fitting import FittingSettings
from fedperfit.protocol.messages.ledger import Entry
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.simulation.communication.row import Asked, Row
from fedperfit.simulation.communication.training.averaging import Averaging, Parameters, Schedule, load_vector
from fedperfit.simulation.compare.building_blocks.adapters import targets, wrapped
from fedperfit.simulation.compare.building_blocks.baseline_training import CLIP_NORM, WEIGHT_DECAY


class AdapterRow(Row):
    """A LoRA whose trained factors are averaged.

    Attributes:
        values: Averaged values (n,) after the last round.
    """

    rank: ClassVar[int] = 8
    """Rank of the LoRA, which is also its alpha."""
    codec: ClassVar[str] = "float32"
    """Encoding of what clients send."""
    trained: ClassVar[tuple[str, ...]] = ("lora_A", "lora_B")
    """Parts of the names of parameters that are trained."""
    averaged: ClassVar[tuple[str, ...]] = ("lora_A", "lora_B")
    """Parts of the names of trained parameters that travel; the rest stays with its client."""
    values: torch.Tensor

    def learn(self, clients: Sequence[History], folder: Path) -> list[Entry]:
        """Train and average the LoRA."""
        context, most = self.context, self.settings.collective_items
        examples = {c.name: context.encode(c.pairs(context.form, most)) for c in clients}
        with self.model() as model:
            model.train()
            shared, own = self.parameters(model)
            averaging = Averaging(context.base, shared, own, examples)
            entries = averaging.run(self.schedule(), self.codec, folder)
            self.values = averaging.values
        return entries

    def answer(self, people: Sequence[Asked]) -> list[list[str]]:
        """Answer by the averaged LoRA."""
        with self.model() as model:
            load_vector(self.parameters(model)[0], self.values)
            model.eval()
            return self.answered_alike(people, self.context.answer)

    @contextmanager
    def model(self) -> Iterator[Any]:
        """Put the LoRA into the base model within the block, every time with the same start."""
        base = self.context.base
        with torch.random.fork_rng():
            torch.manual_seed(self.context.number("communication", "lora"))
            with wrapped(base, self.rank, targets(base, collective=False), dropout=0.0) as model:
                self.prepare(model)
                yield model

    def prepare(self, model: Any) -> None:
        """Change fresh LoRA layers before anything is trained, and freeze what is not.

        Args:
            model: PEFT's model.
        """
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(part in name for part in self.trained))

    def parameters(self, model: Any) -> tuple[Parameters, Parameters]:
        """Return the trained parameters that travel and those that stay, each by name.

        Args:
            model: PEFT's model.
        """
        trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
        shared = {n: each for n, each in trained.items() if any(part in n for part in self.averaged)}
        return shared, {name: each for name, each in trained.items() if name not in shared}

    def schedule(self) -> Schedule:
        """Return rounds and training, of the same batches as all other rows."""
        training = TrainingSettings(
            seed=self.context.seed,
            epochs=self.epochs,
            batch_size=FittingSettings.of_preset(self.settings.preset).batch_size,
            learning_rate=self.rates.shared,
            weight_decay=WEIGHT_DECAY,
            clip_norm=CLIP_NORM,
            max_items=self.settings.collective_items,
            prompt_form=self.context.form,
        )
        return Schedule(self.rounds, self.settings.clients_per_round, training)
