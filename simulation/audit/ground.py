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
from fedperfit.edge.agent.side_by_side import cohorts, shared_prefix
from fedperfit.edge.engine.examples import Example, encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.paths.check import checked, load_checked
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.edge.engine.step import StepRow, step_losses
from fedperfit.edge.engine.training import TOLD_STEP, FitJob, fit
from fedperfit.edge.fitting.form import Form, personal_shift
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.people.people import People
from fedperfit.protocol.people.prior import part
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.codecs import decode
from fedperfit.protocol.shift.codecs import encode as encoded
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.seeds import seed_from
from fedperfit.protocol.tasks import Task, task_by_name
from fedperfit.simulation.audit.settings import AuditSettings
from fedperfit.simulation.basis.prepared import prepare_basis
from fedperfit.simulation.data.participants import participants
from fedperfit.simulation.world.build import WORLD
from fedperfit.simulation.world.settings import ParticipantCounts

EXACT = "float32"
"""Codec that hides nothing: what a control sees."""

_LOSSES_TOGETHER = 64
"""Losses computed at once."""


class Ground:
    """People of one data set on one base model; everything is made on first use."""

    def __init__(self, settings: AuditSettings, folder: Path) -> None:
        """Take up the settings.

        Args:
            settings: Settings of the audit.
            folder: Folder of the audit, where the world is written.
        """
        self.settings, self.folder = settings, folder
        self._alone: dict[Example, torch.Tensor] = {}

    @cached_property
    def cache(self) -> ItemCache:
        """The base model with what is kept of items."""
        settings = self.settings
        return ItemCache(load_checked(settings.base_model, device=settings.device, dtype=settings.dtype))

    @cached_property
    def task(self) -> Task:
        """Task of the people's items."""
        return task_by_name(self.settings.task)

    @cached_property
    def people(self) -> list[History]:
        """People with enough items for those that are used and as many decoys; of data both groups' users.

        Raises:
            InputError: There are fewer than two.
        """
        settings = self.settings
        targets = 1 if settings.data == WORLD else settings.others
        size = ParticipantCounts(
            others=settings.others, targets=targets, world_history=settings.world_history, world_questions=4
        )
        found = participants(self.task, settings.data, size, self.folder)
        everyone = found.others
        if settings.data != WORLD:
            everyone = [*everyone, *(target.history for target in found.targets)]
        enough = [person for person in everyone if len(person.items) >= 2 * settings.items]
        enough = enough[: settings.others]
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
        jobs = [FitJob(self._start(), examples, f"{n}", fewest=TOLD_STEP) for n, examples in enumerate(sets)]
        self._fit(jobs, self.collective)
        codec = codec or self.settings.transport_dtype
        changes = [_numbers(job.shift) - _numbers(start) for job in jobs]
        decoded = [
            decode(codec, encoded(codec, change, seed_from(f"{n}/rounding")), len(change))
            for n, change in enumerate(changes)
        ]
        return torch.stack(decoded)

    def personal(
        self, sets: Sequence[Sequence[Example]], seed: str, *, epochs: int | None = None
    ) -> list[PersonalShift]:
        """Fit a personal shift to each set of items.

        Args:
            sets: Items of each shift.
            seed: Text that starts and orders are drawn from, together with the number of the set.
            epochs: Passes over the items of a fit without basis and noise, which learns them by heart; by
                default the fit is that of the settings.
        """
        training = self.settings.personal_training()
        people = None if epochs else self._people
        epsilon = self.settings.personal_epsilon if people else 0.0
        training = training.replace(epochs=epochs or training.epochs)
        shape = replace(self.bare.shape, rank=self.settings.personal("full").rank)
        jobs: list[FitJob[Any]] = [
            FitJob(PersonalShift.start(shape, seed=seed_from(f"{seed}/{n}")), examples, f"{seed}/{n}")
            for n, examples in enumerate(sets)
        ]
        form = Form.of(people, self.settings.items, epsilon)
        jobs = [form.job(job, people, training, epsilon) for job in jobs]
        self._fit(jobs, training, decay_rate=True)
        return [personal_shift(job.shift) for job in jobs]

    @cached_property
    def _people(self) -> People | None:
        """The basis of personal shifts; None where they are free."""
        if self.settings.personal_basis == "none":
            return None
        assert self.basis is not None
        return People(part(self.basis, self.settings.personal_columns)[0])

    def alone(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return the update that each example would make by itself, unencoded: (examples, numbers)."""
        new = [one for one in dict.fromkeys(examples) if one not in self._alone]
        if new:
            self._alone |= zip(new, self.updates([[one] for one in new], codec=EXACT), strict=True)
        return torch.stack([self._alone[one] for one in examples])

    @torch.no_grad()
    def losses(self, shifts: Sequence[Shift], examples: Sequence[Example]) -> torch.Tensor:
        """Return the loss of each example under each shift alone: (shifts, examples), in nats a token."""
        base, positions = self.cache.base, shifts[0].shape.positions
        layers = Stack((), Slab.of(shifts[:1], base.device), False).layers
        path = checked(base, layers, positions).training
        prepared = self.cache.prepare([examples], layers[0], positions, self._prefix, path)
        pairs = [(shift, example) for shift in shifts for example in examples]
        found = []
        for start in range(0, len(pairs), _LOSSES_TOGETHER):
            some = pairs[start : start + _LOSSES_TOGETHER]  # each row has a copy of its shift
            stack = Stack((), Slab.of([shift for shift, _ in some], base.device), False)
            rows = [StepRow(n, example, prepared.items[example]) for n, (_, example) in enumerate(some)]
            found.append(step_losses(base, stack, prepared, rows).cpu())
        return torch.cat(found).view(len(shifts), len(examples))

    @property
    def bare(self) -> Shift:
        """A shift that changes nothing: the base model."""
        return Shift.identity(self.settings.shape(self.cache.base.card), seed=0)

    def summed(self, updates: torch.Tensor) -> torch.Tensor:
        """Return the sum (numbers,) of updates (clients, numbers), of votes where they are votes."""
        return updates.sign().sum(dim=0) if self._votes else updates.sum(dim=0)

    @property
    def _votes(self) -> bool:
        return self.settings.transport_dtype == "sign"

    def noised(self, updates: torch.Tensor, epsilon: float, label: str) -> torch.Tensor:
        """Return a round's change under a promise, from which the next broadcast follows.

        Args:
            updates: (clients, numbers) the clients' decoded changes.
            epsilon: Epsilon of all rounds together.
            label: Names the draw of the noise.
        """
        settings = self.settings
        multiplier = least_multiplier(epsilon, settings.target_delta, settings.rounds)
        size = settings.vote_step if self._votes else settings.clipping_norm
        mechanism = Mechanism(multiplier, self._votes, size)
        secret = seed_from(f"{settings.seed}/noise").to_bytes(32, "big")  # of an experiment, to be repeated
        return mechanism.change(updates, len(updates), secret, label)

    def strangers_items(self, name: str, count: int) -> list[dict[str, Any]]:
        """Return latest items of other people, as questions for a person's shift."""
        others = [person for person in self.people if person.name != name]
        of_each = -(-count // len(others))
        latest = [item for person in others for item in person.items[-of_each:]]
        return latest[:count]

    @cached_property
    def own_tokens(self) -> list[int]:
        """All tokens that people's prompts have after what all prompts begin with."""
        start = len(self._prefix)
        prompts = [example.prompt for person in self.people for example in self.examples(person.items[:8])]
        return sorted({token for prompt in prompts for token in prompt[start:]})

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
