"""Outcomes of an agent's actions, as far as the cloud may know them."""

from dataclasses import dataclass

from fedperfit.edge.engine.scoring import Sums


@dataclass(frozen=True)
class Outcome:
    """Result of an action, as far as the cloud may know it."""

    items: int
    """Number of training pairs used, or of questions answered."""
    metrics: Sums
    """Metric sums over those items; sent only when the owner shares metrics."""


@dataclass(frozen=True)
class ToldSum(Outcome):
    """Answer of a member of the committee of secure sums."""

    total: bytes
    """Sum of the shares that were sealed to it; empty where some cannot be opened."""
    bad: tuple[str, ...]
    """Names of the clients whose shares it cannot open."""


@dataclass(frozen=True)
class Contribution(Outcome):
    """Result of a round of stage 1."""

    update: bytes
    """The packed collective shift as this client left it, or what changed in its coordinates; empty, with no
    items, where the client lacks the basis they are in."""
