"""What can answer at a deployed edge: the release in force, the personal shift on it; which stage does."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.edge.releases.store import ReleaseStore
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.edge.vault.stored_shift import StoredShift
from fedperfit.protocol.messages.settings import FULL_SLOT, PersonalSettings, Stage
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import PromptForm
from fedperfit.protocol.trust.release import Release


@dataclass(frozen=True)
class State:
    """State of a deployed edge at one moment."""

    release: Release | None
    """Release in force, if there is one."""
    personal: StoredShift | None
    """Description of the personal shift, if there is one."""
    stage: str
    """Stage used when the caller names none."""
    busy: str
    """Name and step of the training under way; empty when there is none."""
    problem: str
    """Reason why there is no personal answer; empty when there is one."""


class Stages:
    """The stages of one person's agent; each stands on the ones before it."""

    def __init__(self, agent: Agent, releases: ReleaseStore, form: PromptForm = PromptForm.LAMP) -> None:
        """Look at an agent and its releases, whatever they are at each call.

        Args:
            agent: the person's agent, whose vault is held.
            releases: its verified releases.
            form: form of the prompts that was agreed on.
        """
        self._agent, self._releases, self._form = agent, releases, form
        self._opened: tuple[str, OpenedRelease] | None = None

    def open(self, release: Release) -> OpenedRelease:
        """Open a release for use with the agent's base model; the last one opened is kept.

        Args:
            release: verified release.
        """
        if self._opened is None or self._opened[0] != release.digest:
            self._opened = (release.digest, OpenedRelease.of(release.to_bytes(), self._agent.base))
        return self._opened[1]

    def current(self) -> Release:
        """The release in force; raises InputError where there is none."""
        release = self._releases.current()
        if release is None:
            latest = self._releases.latest()
            if latest is not None:
                raise InputError(f"release {latest.version} was revoked, and no other is here yet")
            raise InputError("there is no release yet: the cloud has not sent one")
        return release

    def kept(self) -> tuple[StoredShift, PersonalShift]:
        """The personal shift in the vault, of whatever release; raises InputError where there is none."""
        return self._agent.vault.open(FULL_SLOT)

    def personal(self) -> PersonalSettings:
        """Settings of the personal shift in use."""
        rank, additive = 1, False
        if FULL_SLOT in self._agent.vault.slots():
            stored, _ = self.kept()
            rank, additive = stored.shape.rank, stored.shift_key.additive
        return PersonalSettings(rank=rank, additive=additive, slot=FULL_SLOT)

    def prompt_form(self) -> PromptForm:
        """Form of the prompts that the personal shift was fitted on; without one, that was agreed on."""
        if FULL_SLOT not in self._agent.vault.slots():
            return self._form
        stored, _ = self.kept()
        return PromptForm(stored.fit_record.training["prompt-form"])

    def chosen(self, name: str) -> Stage:
        """Choose the named stage, or without a name the last one that can answer.

        Where that is `personal`, it is the stage with the lowest held-out loss.

        Args:
            name: base, collective, directions or personal; empty for none.

        Raises:
            InputError: the named stage cannot answer, and why.
        """
        if name and name not in list(Stage):
            raise InputError(f"stage={name!r}: expected one of {', '.join(Stage)}")
        if name:
            self.stack(Stage(name))
            return Stage(name)
        last = next(stage for stage in reversed(Stage) if self._can_answer(stage))
        return self._best_stage() if last is Stage.PERSONAL else last

    def _can_answer(self, stage: Stage) -> bool:
        try:
            self.stack(stage)
        except InputError:
            return False
        return True

    def _best_stage(self) -> Stage:
        """The stage with the lowest held-out loss; `personal` where its directions are of another release."""
        stored, _ = self.kept()
        stage = Stage(stored.fit_record.stage)
        stale = stage is Stage.DIRECTIONS and stored.fit_record.version != self.current().version
        return Stage.PERSONAL if stale else stage

    def edited(self, stage: Stage) -> AbstractContextManager[None]:
        """Edit the model inside the block as the stage wants it.

        Args:
            stage: stage that answers.
        """
        if stage is Stage.BASE:
            return nullcontext()
        return self.open(self.current()).edited(self._agent.base, stage)

    def stack(self, stage: Stage) -> Stack:
        """The shifts that act at a stage.

        Args:
            stage: stage that answers.

        Raises:
            InputError: the stage cannot answer, and why.
        """
        if stage is Stage.BASE:
            return Stack([], None, False)
        opened = self.open(self.current())
        frozen = [opened.frozen(self._agent.base)]
        opened.edit(stage)
        if stage is not Stage.PERSONAL:
            return Stack(frozen, None, False)
        personal = self.personal()
        shift = self._agent.vault.load(FULL_SLOT, opened.shift_key(personal.additive))
        return Stack(frozen, Slab.of([shift], self._agent.base.device), personal.additive)

    def stale(self) -> bool:
        """Whether the personal shift in use is of another release than the one in force."""
        release = self._releases.current()
        if release is None or FULL_SLOT not in self._agent.vault.slots():
            return False
        try:
            stored, _ = self.kept()
        except InputError:  # what cannot be opened is not renewed behind its owner's back
            return False
        return stored.shift_key != self.open(release).shift_key(stored.shift_key.additive)
