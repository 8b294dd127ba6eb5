"""What an agent tells of all of its pairs, and of no single one."""

from dataclasses import dataclass

from edge.agent import Outcome
from protocol.errors import InputError
from protocol.settings import FEWEST_PAIRS


class TooFewPairs(InputError):
    """Statistics of so few pairs would tell the pairs themselves."""


@dataclass(frozen=True)
class Statistics(Outcome):
    """An outcome whose items are the pairs."""

    data: bytes
    """As `protocol.statistics` has it; empty, and no items, where a view is needed that is not there."""


def check_enough(pairs: int, what: str) -> None:
    """Raises TooFewPairs; what: they are called."""
    if pairs < FEWEST_PAIRS:
        raise TooFewPairs(f"{pairs} {what}, at least {FEWEST_PAIRS} are needed")
