"""What an agent tells of all of its pairs, and of no single one."""

from dataclasses import dataclass

from fedperfit.edge.agent.agent import Agent, Outcome
from fedperfit.edge.engine.layer_gradients import layer_gradient
from fedperfit.protocol.messages.settings import FEWEST_PAIRS, LayerGradientSettings
from fedperfit.protocol.messages.statistics import layer_gradient_to_bytes
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.system.errors import InputError


class TooFewPairs(InputError):
    """Statistics of so few pairs would tell the pairs themselves."""


@dataclass(frozen=True)
class Statistics(Outcome):
    """An outcome whose items are the pairs."""

    data: bytes
    """Encoded statistics; empty, and no items, where a view is needed that is not there."""


def check_enough(pairs: int, what: str) -> None:
    """Raises TooFewPairs; what: they are called."""
    if pairs < FEWEST_PAIRS:
        raise TooFewPairs(f"{pairs} {what}, at least {FEWEST_PAIRS} are needed")


def report_layer_gradient(agent: Agent, settings: LayerGradientSettings) -> Statistics:
    """Of the latest pairs of the history; raises TooFewPairs."""
    pairs = agent.history.pairs(settings.prompt_form, settings.max_items)
    check_enough(len(pairs), "training pairs")
    told = layer_gradient(agent.base, pairs, Positions.parse(settings.positions), settings.batch_size)
    return Statistics(told.pairs, {}, layer_gradient_to_bytes(told))
