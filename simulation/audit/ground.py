"""Common ground of all attacks: people, the frozen model, and what leaves their edges or lies on them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from fedperfit.cloud.job.basis import run_basis
from fedperfit.cloud.privacy.accountant import least_multiplier
from fedperfit.cloud.privacy.mechanism import Mechanism
from fedperfit.edge.agent.history import History
from fedperfit.edge.agent.side_by_side import shared_prefix
from fedperfit.edge.engine.examples import Example, encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.training import FitJob, cohorts, fit, mean_losses
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.model.base_model import load
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.codecs import decode
from fedperfit.protocol.shift.codecs import encode as encoded
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.seeds import seed_from
from fedperfit.protocol.tasks import Task, task_by_name
from fedperfit.simulation.audit.settings import AuditSettings
from fedperfit.simulation.basis.public import prepare_basis
from fedperfit.simulation.data.participants import participants
from fedperfit.simulation.world.settings import ParticipantCounts

EXACT = "float32"
"""Codec that hides nothing: what a control sees."""


class Ground:
    """People of one data set on one base model; everything is made on first use."""

    def __init__(self, settings: AuditSettings, folder: Path) -> None:
        """Take up the settings.

        Args:
            settings: Settings of the audit.
            folder: Folder of the audit, where the world is written.
        """
        self.settings, self.folder = settings, folder

    @cached_property
    def cache(self) -> ItemCache:
        """The base model with what is kept of items."""
        settings = self.settings
        return ItemCache(load(settings.base_model, device=settings.device, dtype=settings.dtype))

    @cached_property
    def task(self) -> Task:
        """Task of the people's items."""
        return task_by_name(self.settings.task)

    @cached_property
    def people(self) -> list[History]:
        """People with enough items for those that are used and as many decoys.

        Raises:
            InputError: There are fewer than two.
        """
        settings = self.settings
        size = ParticipantCounts(
            others=settings.others, targets=1, world_history=settings.world_history, world_questions=4
        )
        everyone = participants(self.task, settings.data, size, self.folder).others
        enough = [person for person in everyone if len(person.items) >= 2 * settings.items]
        if len(enough) < 2:
            raise InputError(
                f"{len(enough)} of {len(everyone)} people have {2 * settings.items} items, half of them "
                "decoys; two are needed: take fewer items"
            )
        return enough

    @cached_property
    def names(self) -> list[str]:
        """Names of the people."""
        return [person.name for person in self.people]

    def person(self, name: str) -> History:
        """Return the person of a name."""
        return self.people[self.names.index(name)]

    @cached_property
    def basis(self) -> Basis | None:
        """Frozen basis of the updates; None where whole shifts travel."""
        settings = self.settings
        prepare_basis(self.folder, settings, settings.data, lambda: self.cache.base)
        return run_basis(settings, self.cache.base.card, self.folder)

    def examples(self, items: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Encode items as training pairs."""
        form = self.settings.prompt_form
        return encode(self.cache.base, [self.task.item_pair(item, form) for item in items])

    @property
    def collective(self) -> TrainingSettings:
        """Training of one round."""
        return self.settings.collective_training().replace(max_items=0)

    def updates(self, sets: Sequence[Sequence[Example]], *, codec: str | None = None) -> torch.Tensor:
        """Make one honest update of each set of items, on a shift that changes nothing yet.

        Args:
            sets: Items of each update.
            codec: Encoding of the updates, by default that of the settings.

        Returns:
            What the cloud decodes of each: (sets, numbers).
        """
        start = self._start()
        jobs = [FitJob(self._start(), examples, f"{n}") for n, examples in enumerate(sets)]
        self._fit(jobs, self.collective)
        codec = codec or self.settings.transport_dtype
        changes = [_numbers(job.shift) - _numbers(start) for job in jobs]
        decoded = [
            decode(codec, encoded(codec, change, seed_from(f"{n}/rounding")), len(change))
            for n, change in enumerate(changes)
        ]
        return torch.stack(decoded)

    def personal(self, sets: Sequence[Sequence[Example]], seed: str = "") -> list[PersonalShift]:
        """Fit a personal shift to each set of items.

        Args:
            sets: Items of each shift.
            seed: Text that starts and orders are drawn from, together with the number of the set.
        """
        training = self.settings.personal_training()
        rank = self.settings.personal("full").rank
        shape = replace(self.settings.shape(self.cache.base.card), rank=rank)
        jobs = [
            FitJob(PersonalShift.start(shape, seed=seed_from(f"{seed}/{n}")), examples, f"{seed}/{n}")
            for n, examples in enumerate(sets)
        ]
        self._fit(jobs, training, decay_rate=True)
        return [job.shift for job in jobs]

    def losses(self, shifts: Sequence[Shift], examples: Sequence[Example]) -> torch.Tensor:
        """Return the loss of each example under each shift alone: (shifts, examples), in nats a token."""
        prefix = self._prefix
        columns = [
            mean_losses(shifts, [one], self.collective, self.cache, frozen=(), additive=False, prefix=prefix)
            for one in examples
        ]
        return torch.tensor(columns).T

    @property
    def bare(self) -> Shift:
        """A shift that changes nothing: the base model."""
        return Shift.identity(self.settings.shape(self.cache.base.card), seed=0)

    def noised(self, updates: torch.Tensor, epsilon: float, label: str) -> torch.Tensor:
        """Return a round's change under a promise, from which the next broadcast follows.

        Args:
            updates: (clients, numbers) the clients' decoded changes.
            epsilon: Epsilon of all rounds together.
            label: Names the draw of the noise.
        """
        settings = self.settings
        multiplier = least_multiplier(epsilon, settings.target_delta, settings.rounds)
        votes = settings.transport_dtype == "sign"
        mechanism = Mechanism(multiplier, votes, settings.vote_step if votes else settings.clipping_norm)
        secret = seed_from(f"{settings.seed}/noise").to_bytes(32, "big")  # of an experiment, to be repeated
        return mechanism.change(updates, len(updates), secret, label)

    @cached_property
    def _prefix(self) -> tuple[int, ...]:
        return shared_prefix(self.cache.base, self.task, self.settings.prompt_form)

    def _start(self) -> Shift | Coordinates:
        return self.bare if self.basis is None else Coordinates.zero(self.basis)

    def _fit(self, jobs: Sequence[FitJob[Any]], training: TrainingSettings, **how: Any) -> None:
        for cohort in cohorts(jobs, training, self.cache):
            fit(cohort, training, self.cache, prefix=self._prefix, **how)


def _numbers(shift: Shift | Coordinates) -> torch.Tensor:
    if isinstance(shift, Coordinates):
        return shift.numbers
    return torch.cat([shift.W.flatten(), shift.b.flatten()]).detach()


def groups(names: Sequence[str], size: int) -> Iterator[list[str]]:
    """Yield as many disjoint groups of a size as there are."""
    for start in range(0, len(names) - size + 1, size):
        yield list(names[start : start + size])
