"""What the guard of an edge remembers."""

from dataclasses import dataclass, field

from fedperfit.edge.consent.item_sets import Chain, Told


@dataclass
class GuardState:
    """What the guard remembers across restarts."""

    day: str = ""
    """Date in UTC that `counts` are of."""
    counts: dict[str, int] = field(default_factory=dict)
    """Requests admitted on that day, by kind."""
    once: dict[str, str] = field(default_factory=dict)
    """Release in force when a kind that is answered once for a release was last answered, by kind."""
    salt: str = ""
    """Key of the digests below, as hexadecimal digits."""
    pinned: list[str] = field(default_factory=list)
    """Digests of the pairs that contributions are made of, oldest first."""
    told: dict[str, Told] = field(default_factory=dict)
    """Pairs that losses and scores were told of last, by kind of request."""
    selected: list[str] = field(default_factory=list)
    """Digests of the items that preference pairs were made of last."""
    chains: dict[str, Chain] = field(default_factory=dict)
    """All sets of items that sums were told of, by kind of set."""
