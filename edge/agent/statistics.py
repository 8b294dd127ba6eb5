"""Statistics that an agent sends of all its pairs together, and of no single one."""

from dataclasses import dataclass

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.outcome import Outcome
from fedperfit.edge.engine.layer_gradients import layer_gradient
from fedperfit.protocol.messages.settings import FEWEST_PAIRS, LayerGradientSettings
from fedperfit.protocol.messages.statistics import layer_gradient_to_bytes
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.system.errors import InputError


class TooFewPairs(InputError):
    """There are so few pairs that their statistics would reveal them."""


@dataclass(frozen=True)
class Statistics(Outcome):
    """Outcome whose items are the pairs behind the statistics."""

    data: bytes
    """Encoded statistics; empty, with no items, where the client lacks the view that the probes are in."""


def check_enough(pairs: int, what: str) -> None:
    """Refuse statistics of too few pairs.

    Args:
        pairs: number of pairs.
        what: name of the pairs in the message.

    Raises:
        TooFewPairs: there are fewer than `FEWEST_PAIRS`.
    """
    if pairs < FEWEST_PAIRS:
        raise TooFewPairs(f"{pairs} {what}, at least {FEWEST_PAIRS} are needed")


def report_layer_gradient(agent: Agent, settings: LayerGradientSettings) -> Statistics:
    """Layer gradient of the latest pairs of the history.

    Args:
        agent: owner of the history.
        settings: positions, number of pairs, batch size and prompt form.

    Raises:
        TooFewPairs: the history has too few pairs.
    """
    pairs = agent.shared_history.pairs(settings.prompt_form, settings.max_items)
    check_enough(len(pairs), "training pairs")
    gradient = layer_gradient(agent.base, pairs, Positions.parse(settings.positions), settings.batch_size)
    return Statistics(gradient.pairs, {}, layer_gradient_to_bytes(gradient))
