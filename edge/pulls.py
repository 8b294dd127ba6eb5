"""What one agent adds to the choice of layers and ranks: its pull, the gradient of its mean loss."""

from edge.agent import Agent
from edge.offsets import pull
from edge.statistics import Statistics, check_enough
from protocol.positions import Positions
from protocol.settings import PullSettings
from protocol.statistics import pull_to_bytes
from protocol.tasks import PromptForm


def tell_pull(agent: Agent, settings: PullSettings) -> Statistics:
    """Of the latest pairs of the history; raises TooFewPairs."""
    pairs = agent.history.pairs(PromptForm(settings.prompt_form), settings.max_items)
    check_enough(len(pairs), "training pairs")
    told = pull(agent.base, pairs, Positions.parse(settings.positions), settings.batch_size)
    return Statistics(told.pairs, {}, pull_to_bytes(told))
