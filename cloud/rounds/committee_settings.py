"""The settings of secure aggregation."""

from typing import Literal, Self

from pydantic import model_validator

from fedperfit.protocol.messages.sums import (
    CommitteeCorrupt,
    CommitteeSize,
    CommitteeThreshold,
    FewestApart,
    FewestContributors,
)
from fedperfit.protocol.secure_sums.parameters import CommitteeShape
from fedperfit.protocol.settings.base import Settings


class CommitteeSettings(Settings):
    """What the cloud sees of updates: each of them, or their sum alone."""

    secure_aggregation: Literal["off", "committee"] = "off"
    """What the cloud sees: `off`, each update; `committee`, their sum alone, which members drawn from the
    enrolled clients make of shares sealed to them."""
    committee_size: CommitteeSize = 15
    """Members of the committee."""
    committee_corrupt: CommitteeCorrupt = 3
    """Members that the cloud may control without learning more than the sum."""
    committee_threshold: CommitteeThreshold = 12
    """Members whose answers make a sum, above half of size and corrupt together; the others may be lost."""
    fewest_contributors: FewestContributors = 10
    """Clients without which no sum is told."""
    fewest_apart: FewestApart = 2
    """Clients that sums under one release, taken from each other, tell of at least, beside those that the
    cloud may control; 1 bounds nothing."""

    @property
    def secure(self) -> bool:
        """Whether the cloud sees sums alone."""
        return self.secure_aggregation != "off"

    @property
    def committee(self) -> CommitteeShape:
        """Numbers of the committee, checked."""
        return CommitteeShape(self.committee_size, self.committee_corrupt, self.committee_threshold)

    @model_validator(mode="after")
    def _check_committee(self) -> Self:
        if self.secure:
            _ = self.committee
        return self
