"""The Flower ClientApp: a thin bridge between messages and the agent.

It decides nothing and holds nothing. This one holds its agents in process, for simulations; a deployed
edge has `edge.client_app`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedperfit.edge.agent.agent import (
    Agent,
    Contribution,
    Outcome,
    Result,
    contribute,
    evaluate,
    personalize,
)
from fedperfit.edge.agent.statistics import Statistics, report_layer_gradient
from fedperfit.edge.chameleon.contribution import Memory, Probing, moments, probe
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.records import probe_request, refusal, reply, status_reply
from fedperfit.protocol.messages.keys import (
    CONTRIBUTE_TYPE,
    LAYER_GRADIENT_KEY,
    LAYER_GRADIENT_TYPE,
    MOMENTS_KEY,
    MOMENTS_TYPE,
    PERSONALIZE_TYPE,
    PROBE_TYPE,
    SETTINGS_RECORD,
    SHIFT_KEY,
    SHIFT_RECORD,
    SUMS_KEY,
)
from fedperfit.protocol.messages.settings import (
    EvaluationSettings,
    LayerGradientSettings,
    PairSettings,
    PersonalSettings,
    TrainingSettings,
)
from fedperfit.protocol.model.base_model import load
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.system.run_folder import run_folder

app = ClientApp()
_STATISTICS = {MOMENTS_TYPE: MOMENTS_KEY, PROBE_TYPE: SUMS_KEY, LAYER_GRADIENT_TYPE: LAYER_GRADIENT_KEY}
"""What is told of the pairs, by what was asked."""

CLIENTS = "clients"
"""Folder of a run: one folder per client, named by partition, and `agent.json` for all of them."""
AGENT = "agent.json"


@app.query("status")
def status(message: Message, context: Context) -> Message:
    """Who this client is and what it could do."""
    try:
        agent = _agent(context)
    except Exception as error:
        return refusal(message, type(error).__name__)
    history = agent.history
    return status_reply(
        message,
        client=history.name,
        fingerprint=agent.base.card.fingerprint,
        task=history.task.name,
        history=len(history.items) + len(history.answered),
        questions=len(history.questions),
        shares_metrics=history.shares_metrics,
    )


@app.train("contribute")
def on_contribute(message: Message, context: Context) -> Message:
    """One round of stage 1."""
    return next(respond([(message, context)]))


@app.train("personalize")
def on_personalize(message: Message, context: Context) -> Message:
    """Stage 2: the personal shift stays with the agent."""
    return next(respond([(message, context)]))


@app.train("moments")
def on_moments(message: Message, context: Context) -> Message:
    """What the client tells of its preference pairs."""
    return next(respond([(message, context)]))


@app.train("probe")
def on_probe(message: Message, context: Context) -> Message:
    """Sums of a probe's loss and gradient over the client's pairs."""
    return next(respond([(message, context)]))


@app.train("pull")
def on_layer_gradient(message: Message, context: Context) -> Message:
    """The gradient of the client's mean loss at each layer."""
    return next(respond([(message, context)]))


@app.evaluate("stage")
def on_evaluate(message: Message, context: Context) -> Message:
    """Metric sums of one stage on the client's own questions."""
    return next(respond([(message, context)]))


def respond(requests: Sequence[tuple[Message, Context]]) -> Iterator[Message]:
    """A reply to each of `requests`, which differ in their client only; the clients act side by side."""
    left = {id(message): message for message, _ in requests}
    errors: dict[int, Exception] = {}
    asked: dict[Agent, Message] = {}

    def agents() -> Iterator[Agent]:
        for message, context in requests:
            try:
                agent = _agent(context)
            except Exception as error:
                errors[id(message)] = error
            else:
                asked[agent] = message
                yield agent

    try:
        for agent, result in _act(agents(), *requests[0]):
            message = asked.pop(agent)
            if isinstance(result, InputError):
                errors[id(message)] = result
            else:
                del left[id(message)]
                yield _reply(message, result, agent.history.shares_metrics)
    except Exception as error:
        errors = {key: errors.get(key, error) for key in left}
    for key, message in left.items():
        yield refusal(message, type(errors[key]).__name__)


def _act(agents: Iterable[Agent], message: Message, context: Context) -> Iterator[Result]:
    items = items_of(_clients(context))
    config = {**message.content.config_records[SETTINGS_RECORD]}
    kind = message.metadata.message_type
    if kind in (MOMENTS_TYPE, PROBE_TYPE):
        settings, memory = PairSettings.from_config(config), _memory(_clients(context))
        if kind == MOMENTS_TYPE:
            return _each(agents, lambda agent: moments(agent, settings, memory))
        asked = Probing(**probe_request(message))
        return _each(agents, lambda agent: probe(agent, settings, asked, memory))
    if kind == LAYER_GRADIENT_TYPE:
        wanted = LayerGradientSettings.from_config(config)
        return _each(agents, lambda agent: report_layer_gradient(agent, wanted))
    packed = message.content.array_records[SHIFT_RECORD][SHIFT_KEY].data
    if kind == CONTRIBUTE_TYPE:
        return contribute(agents, packed, TrainingSettings.from_config(config), items)
    if kind == PERSONALIZE_TYPE:
        personal = PersonalSettings.from_config(config)
        return personalize(agents, packed, personal, TrainingSettings.from_config(config), items)
    return evaluate(agents, packed, EvaluationSettings.from_config(config), items)


def _each(agents: Iterable[Agent], act: Callable[[Agent], Outcome]) -> Iterator[Result]:
    for agent in agents:
        try:
            yield agent, act(agent)
        except InputError as error:
            yield agent, error


def _reply(message: Message, result: Outcome, shares_metrics: bool) -> Message:
    if isinstance(result, Statistics):
        key = _STATISTICS[message.metadata.message_type]
        return reply(message, result.items, statistics={key: result.data} if result.data else None)
    update = result.update if isinstance(result, Contribution) else None
    return reply(message, result.items, result.metrics if shares_metrics else None, update)


def _agent(context: Context) -> Agent:
    """The agent of this node, in process: the folder its partition names in the run's folder."""
    folder = _clients(context) / str(context.node_config["partition-id"])
    items = items_of(_clients(context))
    encoder = read_json(_clients(context) / AGENT).get("encoder", "")
    return Agent(folder, items.base, items, encoder=encoder)


def items_of(clients: Path) -> ItemCache:
    """The model that `agent.json` in the run's client folders names, and its items.

    Loaded once per process; Flower's simulation keeps its processes between messages.
    """
    about = read_json(clients / AGENT)
    return _loaded(about["base-model"], about["device"], about["dtype"], about.get("cache-gib", -1.0))


def _clients(context: Context) -> Path:
    return run_folder(context.run_config, context.run_id) / CLIENTS


@lru_cache(maxsize=1)
def _memory(clients: Path) -> Memory:
    """Of the agents of one run, which are made anew for each message."""
    return Memory()


@lru_cache(maxsize=1)
def _loaded(name: str, device: str, dtype: str, gib: float) -> ItemCache:
    budget = None if gib < 0 else int(gib * 2**30)
    return ItemCache(load(name, device=device, dtype=dtype), budget)
