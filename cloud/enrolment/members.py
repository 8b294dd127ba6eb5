"""Naming the enrolled clients in the release chain, so that committees of secure sums are drawn from what is
signed, and alike for everybody.
"""

from datetime import timedelta

from fedperfit.cloud.deployment.home import CloudHome, read_cloud
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.enrolment.registration import enrolled, keys_for_sums
from fedperfit.cloud.job.basis import settings_basis
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.release import Release


def publish_members(home: CloudHome) -> tuple[Release, list[str]]:
    """Release what is in force again, naming all enrolled clients that have keys for secure sums.

    Before the first release the identity is released, which changes no answer.

    Args:
        home: The cloud.

    Returns:
        The release, and the names of enrolled clients without keys, which are in no sum.

    Raises:
        InputError: If nobody has keys, or no release is in force that could name them.
    """
    settings, members = read_cloud(home), keys_for_sums(home)
    if not members.keys:
        raise InputError(f"{home.folder}: no enrolled client has keys for secure sums; invite them again")

    def first() -> tuple[Shift, ShiftHeader]:
        card = read_card(settings.base_model)
        shape, basis = settings.shape(card), settings_basis(settings, card)
        shift = Coordinates.zero(basis).shift() if basis else Shift.identity(shape, seed=settings.seed)
        return shift, ShiftHeader(
            shape=shape,
            task=settings.task_id,
            fingerprint=card.fingerprint,
            round=0,
            dtype=settings.release_dtype,
        )

    release = CloudReleases(home.folder).name_members(
        members, first, lifetime=timedelta(days=settings.lifetime_days)
    )
    return release, sorted(set(enrolled(home).values()) - set(members.keys))
