"""Removes single learned items: from the vault, and from what was fitted on them, by fitting anew without.

Nothing that was fitted on a removed item outlives it: the shifts go first, then the items, and a new shift is
fitted on what is left. What the collective shift learned of an item stays there.
"""

from collections.abc import Sequence

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.engine.training import Watch
from fedperfit.edge.learning.renewal import renew
from fedperfit.protocol.messages.settings import FULL_SLOT, PersonalSettings, TrainingSettings
from fedperfit.protocol.system.errors import InputError, count_of


def unlearn(
    agent: Agent,
    numbers: Sequence[int],
    release: OpenedRelease | None,
    version: int,
    watch: Watch | None = None,
) -> bool:
    """Remove learned items and fit the personal shift anew, with the settings of the one that goes.

    Args:
        agent: The person's agent.
        numbers: Places of the items among those learned, from 1.
        release: Release in force, if there is one.
        version: Its version.
        watch: Called before every step of the fit.

    Returns:
        Whether there is a personal shift again; where there was none, or nothing is left to fit it on, the
        next request to personalize makes one.

    Raises:
        InputError: If there is no item of such a number; then nothing is changed.
    """
    known = len(agent.vault.learned())
    for number in numbers:
        if not 1 <= number <= known:
            raise InputError(f"item {number}: there is none; {count_of(known, 'item')} in all")
    kept = _fitted(agent)
    for slot in agent.vault.slots():
        agent.vault.drop(slot)
    agent.vault.unlearn(numbers)
    history = agent.read()
    if kept is None or release is None or not (history.items or history.answered):
        return False
    renew(agent, release, version, *kept, watch)
    return True


def _fitted(agent: Agent) -> tuple[PersonalSettings, TrainingSettings] | None:
    """The settings of the personal shift in use; None without one."""
    if FULL_SLOT not in agent.vault.slots():
        return None
    stored, _ = agent.vault.open(FULL_SLOT)
    personal = PersonalSettings(rank=stored.shape.rank, additive=stored.shift_key.additive, slot=FULL_SLOT)
    return personal, TrainingSettings.from_config(stored.fit_record.training)
