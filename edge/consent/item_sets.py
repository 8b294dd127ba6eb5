"""Sets of items behind what is told: the same one until enough others came, so that no two differ by few.

An item may be in a set more than once. Copies of one item are a difference, as a sum tells of each of them,
but of one item, however many they are.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from typing_extensions import TypedDict

from fedperfit.protocol.trust.policy import Policy


class Told(TypedDict):
    """The set of items that sums of one kind were told of last."""

    version: int
    """Version of the policy that it was told under."""
    most: int
    """Number of latest items that were asked for; 0 for all."""
    digests: list[str]
    """Digests of the items."""


def told_next(policy: Policy, known: Told | None, digests: Sequence[str], most: int) -> Told | None:
    """Decide whether sums over items may be told after what was told before.

    Args:
        policy: What the owner agreed to; under a new version another number of latest ones may be asked for.
        known: What was told last; None at first. `linked` compares with what was told before it.
        digests: Digests of all items of the kind, oldest first.
        most: Number of the latest ones that the sums are over; 0 for all.

    Returns:
        What is told now; None where the sums are of too few items, of another number of latest ones than
        before, or of a set that differs from the last one in a few.
    """
    latest = list(digests[-most:])
    if len(set(latest)) < policy.least_items:
        return None
    bound = known is not None and known["version"] == policy.version
    if known is not None and bound and (known["most"] != most or few(policy, known["digests"], latest)):
        return None
    return {"version": policy.version, "most": most, "digests": latest}


class Chain(TypedDict):
    """All sets of items that sums of one kind were told of: the last, and what led to it."""

    last: list[str]
    """Digests of the items of the last set."""
    changes: list[list[str]]
    """Copies of items, as `_copies` names them, in which each set and the one before it differ, in order."""


def linked(chain: Chain | None, after: Sequence[str], growth: int) -> Chain | None:
    """Decide whether sums over a set of items may be told after all that were told before.

    Args:
        chain: Sets that were told of; None at first.
        after: Digests of the set.
        growth: Items in which two sets must differ, unless they are the same.

    Returns:
        The sets that are told of then; None where the set differs from one of them in fewer items.
    """
    if chain is None:
        return {"last": list(after), "changes": []}
    first = difference = _copies(chain["last"]) ^ _copies(after)
    for change in [*reversed(chain["changes"]), []]:
        if not difference:
            return chain
        if _items(difference) < growth:
            return None
        difference = difference ^ set(change)
    return {"last": list(after), "changes": [*chain["changes"], sorted(first)]}


def few(policy: Policy, before: Sequence[str], after: Sequence[str]) -> bool:
    """Return whether two sets of items differ, but in fewer than the policy's growth.

    Args:
        policy: What the owner agreed to.
        before: Digests of one set.
        after: Digests of the other.
    """
    return 0 < _items(_copies(before) ^ _copies(after)) < policy.growth


def changed(before: Sequence[str], after: Sequence[str]) -> str:
    """Say how the items of a history changed since they were used.

    Args:
        before: Digests of the items as they were used.
        after: Digests of the items as they are.
    """
    differing = len(set(before) ^ set(after))
    if differing:
        return f"{differing} of the items differ from those used before"
    if Counter(before) == Counter(after):
        return "the items used before are in another order"
    return "copies of items used before were added or removed"


def settled(
    policy: Policy, before: Sequence[str], chosen: Sequence[str], every: Sequence[str]
) -> list[str] | None:
    """Decide which items preference pairs are made of.

    Args:
        policy: What the owner agreed to.
        before: Digests of the items that pairs were made of last; empty at first.
        chosen: Digests of the items that would be chosen now.
        every: Digests of all items that may be.

    Returns:
        The chosen ones, or those of before where the two differ in a few; None where those are gone.
    """
    if not before or not few(policy, before, chosen):
        return list(chosen)
    return list(before) if set(before) <= set(every) else None


def _copies(digests: Sequence[str]) -> set[str]:
    """Name all copies apart: the first of an item by its digest, others with their number behind it."""
    seen: Counter[str] = Counter()
    copies = set()
    for digest in digests:
        seen[digest] += 1
        copies.add(digest if seen[digest] == 1 else f"{digest} {seen[digest]}")
    return copies


def _items(copies: Iterable[str]) -> int:
    """Number of different items among copies."""
    return len({copy.partition(" ")[0] for copy in copies})


def digested(item: dict[str, Any]) -> list[Any]:
    """Return what an item's digest is made of: its fields in a fixed order."""
    return sorted(item.items())
