"""How public people differ in a basis: each is fitted alone, by many passes over their items.

They are the world's population, or the users of a data set that may be read, and nobody of a federation. The
fits start at a shift that changes nothing, so that a prior can be made before the first round.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fedperfit.cloud.job.people import check_numbers
from fedperfit.cloud.job.settings import JobSettings
from fedperfit.edge.agent.side_by_side import cohorts, shared_prefix
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.people.scatter import Scatter
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.tasks import Pair, task_by_name
from fedperfit.simulation.data.lamp import open_lamp
from fedperfit.simulation.data.lamp_files import folder_of
from fedperfit.simulation.data.participants import other_history
from fedperfit.simulation.world.build import population_pairs

PEOPLE = 128
"""Public people who are fitted, at most."""
ITEMS = 24
"""Latest items of each, at most."""
_EPOCHS = 30
OnPerson = Callable[[int, int], None]
"""Called with the number of people who are fitted, and of all."""


def write_people(
    path: Path,
    base: BaseModel,
    settings: JobSettings,
    basis: Basis,
    people: Sequence[Sequence[Pair]],
    on_person: OnPerson = lambda fitted, people: None,
) -> Scatter:
    """Fit each person's coordinates, and write how they differ.

    Until the last is fitted, a file beside it keeps the fits, with which a stopped work goes on.

    Args:
        path: File to write.
        base: The base model.
        settings: Task, prompts and training of a round, whose passes are replaced by thirty.
        basis: Basis of the coordinates.
        people: Training pairs of each person.
        on_person: Told of the progress.

    Raises:
        InputError: If fewer than two people have items, the basis has too many coordinates, or a fit ends in
            numbers that are not finite.
    """
    check_numbers(basis.numbers)
    with_items = [pairs for pairs in people if pairs]
    if len(with_items) < 2:
        raise InputError("how people differ is told by two at least")
    training = settings.collective_training().replace(epochs=_EPOCHS, max_items=0)
    cache, prefix = ItemCache(base), shared_prefix(base, task_by_name(settings.task), settings.prompt_form)
    fits = _Fits(path.with_name(path.name + ".part"), basis, training, with_items)
    jobs = [
        FitJob(Coordinates.zero(basis), encode(base, pairs), f"public/{number}")
        for number, pairs in enumerate(with_items)
    ]
    for cohort in cohorts((job for job in jobs if job.order not in fits.found), training, cache):
        if any(done.failed for done in fit(cohort, training, cache, prefix=prefix)):
            raise InputError("a fit of public people is not finite: collective-learning-rate may be too high")
        fits.keep({job.order: job.shift.numbers for job in cohort})
        on_person(len(fits.found), len(jobs))
    scatter = Scatter.of(basis.digest, torch.stack([fits.found[job.order] for job in jobs]))
    write_atomic(path, scatter.to_bytes())
    fits.path.unlink(missing_ok=True)
    return scatter


class _Fits:
    """Fits that are finished, in a file; those of other people or settings are of no use."""

    def __init__(
        self, path: Path, basis: Basis, training: TrainingSettings, people: Sequence[Sequence[Pair]]
    ) -> None:
        texts = [[repr(pair) for pair in pairs] for pairs in people]
        self._key = sha256(json.dumps([basis.digest, training.to_config(), texts]).encode()).hexdigest()
        self.path = path
        self.found: dict[str, torch.Tensor] = {}
        """Numbers of each person by the order of the fit."""
        if path.exists():
            with suppress(SafetensorError), safe_open(path, "pt") as file:
                if file.metadata() == {"of": self._key}:
                    self.found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def keep(self, fitted: dict[str, torch.Tensor]) -> None:
        """Add fits to the file."""
        self.found |= fitted
        write_atomic(self.path, save(self.found, metadata={"of": self._key}))


def world_people(settings: JobSettings, people: int = PEOPLE, items: int = ITEMS) -> list[list[Pair]]:
    """Draw people of the world's population.

    Args:
        settings: Task and seed.
        people: Number of people.
        items: Pairs of each.

    Raises:
        InputError: The world does not have the task.
    """
    drawn = population_pairs(task_by_name(settings.task), settings.seed, items_per_user=items)
    return [[pair for pair, _ in islice(drawn, items)] for _ in range(people)]


def people_of_data(
    folder: Path, settings: JobSettings, people: int = PEOPLE, items: int = ITEMS
) -> list[list[Pair]]:
    """Read the latest pairs of a data set's others.

    Args:
        folder: Folder with LaMP files, or with one such folder per task.
        settings: Task and form of the prompts.
        people: Number of people at most.
        items: Pairs of each at most.

    Raises:
        InputError: Data is missing or broken.
    """
    task = task_by_name(settings.task)
    data = open_lamp(folder_of(folder, task), task)
    users = [data.user("others", name) for name in data.users("others")[:people]]
    return [other_history(task, user).pairs(settings.prompt_form, items) for user in users]
