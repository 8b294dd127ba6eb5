"""Edges as they are deployed, so far as they can be asked in one process: agent, guard and policy."""

from dataclasses import replace

import torch

from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.enrolment.policy import policy_of
from fedperfit.cloud.job.basis import BASIS
from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.history import write_history
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.consent.guard import Guard
from fedperfit.edge.consent.refusal import Refused
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.trust.policy import Policy
from fedperfit.simulation.audit.ground import Ground
from fedperfit.simulation.cluster.scratch import scratch


class Edges:
    """The edges of an audit's people."""

    def __init__(self, ground: Ground) -> None:
        """Take up the surroundings.

        Args:
            ground: People, model and settings of the audit.
        """
        self.ground = ground

    def policy(self) -> Policy:
        """Return what a cloud of these settings asks its edges to agree to."""
        ground = self.ground
        settings, least = ground.settings, ground.settings.items
        basis = ground.basis
        values = CloudSettings.own(settings.to_flat()) | {"collective-max-items": least, "least-items": least}
        if basis is not None and settings.update_basis in ("public", "learned"):
            values["basis-file"] = str(ground.folder / BASIS)
        return policy_of(CloudSettings.from_flat(values), ground.cache.base.card)

    def greedy_update(self, name: str) -> torch.Tensor | None:
        """Ask a person's edge for an update of the first item alone.

        Args:
            name: Name of the person.

        Returns:
            The update (numbers,); None where the edge's guard refuses.
        """
        ground = self.ground
        person = ground.person(name)
        pairs = person.pairs(ground.settings.prompt_form, 0)
        wanted = ground.collective.replace(max_items=1)
        with scratch() as folder:
            guard = Guard(folder / "guard.json", self.policy())
            try:
                if ground.basis is None:
                    shared = guard.contribution(self._broadcast(), wanted, pairs)
                else:
                    shared = guard.coordinates(Coordinates.zero(ground.basis), wanted, pairs)
            except Refused:
                return None
        items = person.items[: max(1, shared - len(person.answered))]
        return ground.updates([ground.examples(items[-1:])])[0]

    def fitted(self, name: str, *, salt: str) -> PersonalShift:
        """Fit a personal shift as the agent of an edge does.

        Args:
            name: Name of the person.
            salt: Secret part of the seed; without it the name alone decides where training begins.
        """
        ground = self.ground
        settings = ground.settings
        person = ground.person(name)
        with scratch() as folder:
            write_history(folder, replace(person, items=person.items[: settings.items]))
            agent = Agent(folder, ground.cache.base, ground.cache, salt=salt)
            release = OpenedRelease.of(self._broadcast(), ground.cache.base)
            agent.personalize(self._broadcast(), settings.personal(), settings.personal_training())
            return agent.vault.load(settings.personal().slot, release.shift_key(settings.additive))

    def start(self, name: str) -> PersonalShift:
        """Return where the training of a person of this name would begin without a secret.

        Args:
            name: The name.
        """
        ground = self.ground
        settings = ground.settings
        with scratch() as folder:
            somebody = ground.people[0]
            write_history(folder, replace(somebody, name=name, items=somebody.items[:1]))
            agent = Agent(folder, ground.cache.base, ground.cache)
            release = OpenedRelease.of(self._broadcast(), ground.cache.base)
            return agent.personal_job(release, settings.personal(), settings.personal_training()).shift

    def _broadcast(self) -> bytes:
        ground = self.ground
        shift = ground.bare
        return pack(shift, ShiftHeader(shift.shape, ground.task.id, ground.cache.base.card.fingerprint, 0))
