"""What a request says of the sum that updates are sealed for, beside basis and codec."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import Field

from fedperfit.protocol.messages.settings import CoordinateSettings, MessageSettings, TrainingSettings
from fedperfit.protocol.secure_sums.fixed_point import FixedPoint
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.secure_sums.parameters import CommitteeShape
from fedperfit.protocol.secure_sums.session import Session
from fedperfit.protocol.settings.rules import Unit

CommitteeSize = Annotated[int, Field(ge=2, le=100), Unit("members")]
CommitteeCorrupt = Annotated[int, Field(ge=1), Unit("members")]
CommitteeThreshold = Annotated[int, Field(ge=2), Unit("members")]
FewestContributors = Annotated[int, Field(ge=2), Unit("clients")]
FewestApart = Annotated[int, Field(ge=1), Unit("clients")]


class SumSettings(MessageSettings):
    """The terms of a training's sums; missing where updates travel open."""

    sum_run: Annotated[str, Field(pattern=r"^[0-9a-f]{32}\z"), Unit("32 hexadecimal digits")]
    """Random name of the training."""
    sum_broadcast: Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z"), Unit("64 hexadecimal digits")]
    """What the round's updates start from and how they are trained: `broadcast_digest`."""
    sum_numbers: Annotated[int, Field(ge=1, le=2**20), Unit("numbers")]
    """Numbers of an update."""
    sum_addends: Annotated[int, Field(ge=2, le=2**20), Unit("clients")]
    """Clients of the federation, the most that a sum can have."""
    clipping_norm: Annotated[float, Field(gt=0), Unit("Euclidean norm")]
    """Norm to which an update is clipped, unless it is a vote."""
    committee_size: CommitteeSize
    """Number of members in the committee."""
    committee_corrupt: CommitteeCorrupt
    """Members that the cloud may control without learning more than the sum."""
    committee_threshold: CommitteeThreshold
    """Members whose answers make a sum."""
    fewest_contributors: FewestContributors
    """Clients without which a member tells no sum."""

    @classmethod
    def given(cls, config: Mapping[str, Any]) -> "SumSettings | None":
        """Read them from a request; None where it has none."""
        return cls.from_some(config) if "sum-run" in config else None


def broadcast_digest(packed: bytes, training: TrainingSettings) -> str:
    """Name what all contributors to a sum must have been sent alike, in 64 hexadecimal digits.

    With another broadcast or other settings for one of them, two sums over the same list would differ by that
    one's update alone.

    Args:
        packed: Packed coordinates, as the cloud broadcast them.
        training: Settings of the round's training.
    """
    told = json.dumps([hashlib.sha256(packed).hexdigest(), training.to_config()], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


@lru_cache(maxsize=8)
def session_of(
    terms: SumSettings, wanted: CoordinateSettings, number: int, release: str, directory: Directory
) -> Session:
    """Make the session of a round, the same for all its parties.

    Args:
        terms: Terms of the training's sums.
        wanted: Basis and codec of the updates.
        number: Round, counted from 1.
        release: Digest of the release in force; empty before the first.
        directory: All that are enrolled, as this party knows them.

    Raises:
        InputError: If the terms make no committee or no sum.
    """
    return Session(
        run=terms.sum_run,
        round=number,
        agreement=f"{wanted.basis}/{terms.sum_broadcast}",
        shape=CommitteeShape(terms.committee_size, terms.committee_corrupt, terms.committee_threshold),
        numbers=FixedPoint(wanted.codec, terms.sum_numbers, terms.sum_addends),
        least=terms.fewest_contributors,
        release=release,
        directory=directory,
    )
