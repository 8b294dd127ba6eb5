"""The Flower ClientApp: a thin bridge between messages and the agent.

It decides nothing and holds nothing. An error reply names the type of the error only: an
exception's text could quote a person's history.
"""

import logging
from collections.abc import Callable
from functools import lru_cache

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from edge.agent import Agent, Outcome
from protocol.base_model import BaseModel, load
from protocol.errors import InputError
from protocol.files import read_json
from protocol.messages import (
    COUNTS_RECORD,
    ITEMS_KEY,
    METRICS_RECORD,
    ROUND_KEY,
    SETTINGS_RECORD,
    SHIFT_KEY,
    SHIFT_RECORD,
    SHIFT_STYPE,
    STATUS_RECORD,
)
from protocol.run_folder import run_folder
from protocol.settings import EvaluationSettings, PersonalSettings, TrainingSettings

app = ClientApp()
logger = logging.getLogger("fedperfit.edge")

CLIENTS = "clients"
"""Folder of a run: one folder per client, named by partition, and `agent.json` for all of them."""
_FAILED = 1000
"""Error code of a reply by an agent that could not do what was asked."""

_Action = Callable[[Message, Context], RecordDict]


def _sealed(action: _Action) -> Callable[[Message, Context], Message]:
    def answer(message: Message, context: Context) -> Message:
        try:
            return Message(action(message, context), reply_to=message)
        except Exception as error:
            kind = type(error).__name__
            logger.warning("an agent could not answer: %s", kind)
            return Message(Error(_FAILED, f"the agent could not answer ({kind})"), reply_to=message)

    return answer


@app.query("status")
@_sealed
def status(message: Message, context: Context) -> RecordDict:
    """Who this client is and what it could do."""
    agent = _agent(context)
    history = agent.history
    record = ConfigRecord(
        {
            "client": history.name,
            "fingerprint": agent.base.card.fingerprint,
            "task": history.task.name,
            "history": len(history.items) + len(history.answered),
            "questions": len(history.questions),
            "shares-metrics": history.shares_metrics,
        }
    )
    return RecordDict({STATUS_RECORD: record})


@app.train("contribute")
@_sealed
def contribute(message: Message, context: Context) -> RecordDict:
    """One round of stage 1."""
    agent, config = _agent(context), message.content.config_records[SETTINGS_RECORD]
    packed, outcome = agent.contribute(_packed(message), TrainingSettings.from_config({**config}))
    reply = _counts(agent, message, outcome)
    array = Array(dtype="uint8", shape=(len(packed),), stype=SHIFT_STYPE, data=packed)
    reply[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: array})
    return reply


@app.train("personalize")
@_sealed
def personalize(message: Message, context: Context) -> RecordDict:
    """Stage 2: the personal shift stays with the agent."""
    agent, config = _agent(context), {**message.content.config_records[SETTINGS_RECORD]}
    personal, training = PersonalSettings.from_config(config), TrainingSettings.from_config(config)
    return _counts(agent, message, agent.personalize(_packed(message), personal, training))


@app.evaluate("stage")
@_sealed
def evaluate(message: Message, context: Context) -> RecordDict:
    """Metric sums of one stage on the client's own questions."""
    agent, config = _agent(context), {**message.content.config_records[SETTINGS_RECORD]}
    return _counts(agent, message, agent.evaluate(_packed(message), EvaluationSettings.from_config(config)))


def _packed(message: Message) -> bytes:
    return message.content.array_records[SHIFT_RECORD][SHIFT_KEY].data


def _counts(agent: Agent, message: Message, outcome: Outcome) -> RecordDict:
    """Counts, and metric sums where the owner shares them."""
    round_number = message.content.config_records[SETTINGS_RECORD][ROUND_KEY]
    if not isinstance(round_number, int):
        raise InputError(f"{ROUND_KEY} is not a number")
    reply = RecordDict({COUNTS_RECORD: MetricRecord({ITEMS_KEY: outcome.items, ROUND_KEY: round_number})})
    if agent.history.shares_metrics:
        reply[METRICS_RECORD] = MetricRecord({**outcome.metrics})
    return reply


def _agent(context: Context) -> Agent:
    """The agent of this node, in process: the folder its partition names in the run's folder."""
    clients = run_folder(context.run_config, context.run_id) / CLIENTS
    about = read_json(clients / "agent.json")
    base = _base_model(about["base-model"], about["device"], about["dtype"])
    return Agent(clients / str(context.node_config["partition-id"]), base)


@lru_cache(maxsize=1)
def _base_model(name: str, device: str, dtype: str) -> BaseModel:
    """Loaded once per process; Flower's simulation keeps its processes between messages."""
    return load(name, device=device, dtype=dtype)
