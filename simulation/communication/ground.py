"""Shared ground of all rows of a study: one base model, the same clients, the same people asked."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from fedperfit.edge.agent.history import History
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.tasks import task_by_name
from fedperfit.simulation.client_app import CLIENTS
from fedperfit.simulation.communication.row import Asked
from fedperfit.simulation.communication.settings import CommunicationSettings
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.data.participants import Participants, Target, participants
from fedperfit.simulation.stored_models import AGENT, items_of


class Ground:
    """Model and people of a study, each loaded once.

    Attributes:
        settings: Settings of the study.
        people: Participants of a task by its name.
    """

    def __init__(self, folder: Path, settings: CommunicationSettings) -> None:
        """Load nothing yet.

        Args:
            folder: Folder of the study.
            settings: Settings of the study.
        """
        self.settings, self._folder = settings, folder
        self.people = cache(self._read_people)

    def _read_people(self, task: str) -> Participants:
        return participants(task_by_name(task), self.settings.data, self.settings.size, self._folder)

    def context(self, task: str, seed: int) -> MethodContext:
        """Return the context of one task and seed, whose model is that of the federations' clients.

        Args:
            task: Name of the task.
            seed: Seed of the training.
        """
        settings, clients = self.settings, self._folder / CLIENTS
        if not (clients / AGENT).exists():
            agent = {key: settings.to_flat()[key] for key in ("base-model", "device", "dtype")}
            write_json(clients / AGENT, agent)
        items = items_of(clients)
        items.clear()  # so that no bit depends on what was done before
        return MethodContext(
            base=items.base,
            task=task_by_name(task),
            form=settings.prompt_form,
            seed=seed,
            items=items,
            folder=self._folder / "made",
            answer_batch=settings.answer_batch,
        )

    def training(self, task: str) -> tuple[list[History], list[Target]]:
        """Return the clients, and the targets that a trained row is scored on.

        Args:
            task: Name of the task.
        """
        people = self.people(task)
        return _clients(people.others), people.targets

    def search(self, task: str) -> tuple[list[History], list[Target]]:
        """Return the clients without those who validate, and these, on whom rates are chosen.

        Args:
            task: Name of the task.

        Raises:
            InputError: There are too few others.
        """
        settings = self.settings
        others, asked = self.people(task).validation(settings.validation_users, settings.validation_questions)
        return _clients(others), asked


def asked_of(targets: Sequence[Target]) -> list[Asked]:
    """Return what a row may see of targets: everything but the answers."""
    return [Asked(target.history, target.questions) for target in targets]


def _clients(others: Sequence[History]) -> list[History]:
    """Name the clients by number, since a user's name may be any text."""
    return [replace(other, name=f"client-{n:04}", shares_metrics=False) for n, other in enumerate(others)]
