"""Flower ClientApp of a simulation: a thin layer between messages and agents.

It decides nothing and holds nothing. Its agents live in the same process; a deployed edge has
`edge.client_app`.
"""

import json
import logging
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedperfit.edge.agent.agent import Agent, Result, contribute, evaluate, personalize
from fedperfit.edge.agent.basis_file import CoordinateRequest
from fedperfit.edge.agent.coordinates import contribute_coordinates
from fedperfit.edge.agent.outcome import Contribution, Outcome, ToldSum
from fedperfit.edge.agent.statistics import Statistics, report_layer_gradient
from fedperfit.edge.chameleon.contribution import Memory, Probing, moments, probe
from fedperfit.edge.records import (
    coordinate_reply,
    envelopes_of,
    probe_request,
    refusal,
    reply,
    round_of,
    sent_basis,
    status_reply,
    sum_reply,
)
from fedperfit.edge.sums.party import SumParty
from fedperfit.edge.sums.requests import SumRequest, tell_sum
from fedperfit.protocol.messages.broadcast import broadcast
from fedperfit.protocol.messages.keys import (
    CONTRIBUTE_TYPE,
    LAYER_GRADIENT_KEY,
    LAYER_GRADIENT_TYPE,
    MOMENTS_KEY,
    MOMENTS_TYPE,
    PERSONALIZE_TYPE,
    PROBE_TYPE,
    SETTINGS_RECORD,
    SUM_TYPE,
    SUMS_KEY,
)
from fedperfit.protocol.messages.settings import (
    CoordinateSettings,
    EvaluationSettings,
    LayerGradientSettings,
    PairSettings,
    PersonalSettings,
    TrainingSettings,
)
from fedperfit.protocol.messages.sums import SumSettings
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.system.files import append_text, read_json
from fedperfit.protocol.system.run_folder import run_folder
from fedperfit.simulation.sent_scan import scan
from fedperfit.simulation.storages import Storage
from fedperfit.simulation.stored_models import items_of, read_about, storage_of

logger = logging.getLogger("fedperfit.simulation")
app = ClientApp()
_STATISTICS = {MOMENTS_TYPE: MOMENTS_KEY, PROBE_TYPE: SUMS_KEY, LAYER_GRADIENT_TYPE: LAYER_GRADIENT_KEY}
"""Key of the statistics in a reply, by the type of the request."""

CLIENTS = "clients"
"""Folder of a run with one folder per client, named by partition, and `agent.json` for all of them."""
ENROLLED = "enrolled.json"
"""File in `CLIENTS` with the keys of all clients for secure sums, where a run has them."""

REFUSALS = "refusals.jsonl"
"""File in the run folder with every error of a client, in full."""


@app.query("status")
def status(message: Message, context: Context) -> Message:
    """Answer who this client is and what it can do.

    Args:
        message: The request.
        context: Flower's context of the node, whose partition names the client's folder.
    """
    try:
        agent = _agent(context)
    except Exception as error:
        _keep_refusal(message, context, error)
        return refusal(message, type(error).__name__)
    history = agent.history
    return status_reply(
        message,
        client=history.name,
        fingerprint=agent.base.card.fingerprint,
        task=history.task.id,
        history=len(history.items) + len(history.answered),
        questions=len(history.questions),
        shares_metrics=history.shares_metrics,
    )


@app.train("contribute")
def on_contribute(message: Message, context: Context) -> Message:
    """Train the collective shift for one round of stage 1.

    Args:
        message: The request, with the packed shift and the settings.
        context: Flower's context of the node, whose partition names the client's folder.
    """
    return next(respond([(message, context)]))


@app.train("personalize")
def on_personalize(message: Message, context: Context) -> Message:
    """Fit the personal shift of stage 2, which stays with the agent.

    Args:
        message: The request, with the packed shift and the settings.
        context: Flower's context of the node, whose partition names the client's folder.
    """
    return next(respond([(message, context)]))


@app.train("moments")
def on_moments(message: Message, context: Context) -> Message:
    """Answer with moments of the hidden states of the client's preference pairs.

    Args:
        message: The request, with the settings.
        context: Flower's context of the node, whose partition names the client's folder.
    """
    return next(respond([(message, context)]))


@app.train("probe")
def on_probe(message: Message, context: Context) -> Message:
    """Answer with sums of a probe's loss and gradient over the client's pairs.

    Args:
        message: The request, with the probe and the settings.
        context: Flower's context of the node, whose partition names the client's folder.
    """
    return next(respond([(message, context)]))


@app.train("pull")
def on_layer_gradient(message: Message, context: Context) -> Message:
    """Answer with the gradient of the client's mean loss at each layer.

    Args:
        message: The request, with the settings.
        context: Flower's context of the node, whose partition names the client's folder.
    """
    return next(respond([(message, context)]))


@app.train("sum")
def on_sum(message: Message, context: Context) -> Message:
    """Answer as a member of the committee of secure sums.

    Args:
        message: The request, with the sealed shares and the settings.
        context: Flower's context of the node, whose partition names the client's folder.
    """
    return next(respond([(message, context)]))


@app.evaluate("stage")
def on_evaluate(message: Message, context: Context) -> Message:
    """Answer with metric sums of one stage on the client's own questions.

    Args:
        message: The request, with the packed shift and the settings.
        context: Flower's context of the node, whose partition names the client's folder.
    """
    return next(respond([(message, context)]))


def respond(requests: Sequence[tuple[Message, Context]]) -> Iterator[Message]:
    """Yield a reply to each request, clients that store the base model alike after one another.

    Each reply is scanned for the client's personal shifts (`sent_scan`).

    Args:
        requests: Messages that differ in their client only, each with the context of its node.
    """
    alike: dict[Storage, list[tuple[Message, Context]]] = {}
    for message, context in requests:
        storage = storage_of(_clients(context), _partition(context))
        alike.setdefault(storage, []).append((message, context))
    for group in alike.values():
        contexts = {message.metadata.message_id: (message, context) for message, context in group}
        for answer in _respond(group):
            request, context = contexts[answer.metadata.reply_to_message_id]
            try:
                scan(_folder(context), request, answer)
            except InputError as error:  # nothing leaves that is not counted
                _keep_refusal(request, context, error)
                answer = refusal(request, type(error).__name__)
            yield answer


def _respond(requests: Sequence[tuple[Message, Context]]) -> Iterator[Message]:
    """Yield a reply to each request; the clients act side by side, and replies come as they are ready.

    An error is its own client's: where acting side by side fails, each of those left acts alone. A reply
    tells an error's type alone, as a deployed edge's does; here the whole of it is in `refusals.jsonl`.
    """
    unanswered = {id(message): (message, context) for message, context in requests}
    errors: dict[int, Exception] = {}
    message_of: dict[Agent, Message] = {}

    def agents() -> Iterator[Agent]:
        for message, context in requests:
            try:
                agent = _agent(context)
            except Exception as error:
                errors[id(message)] = error
            else:
                message_of[agent] = message
                yield agent

    try:
        for agent, result in _act(agents(), *requests[0]):
            message = message_of.pop(agent)
            if isinstance(result, InputError):
                errors[id(message)] = result
            else:
                del unanswered[id(message)]
                yield _reply(message, result, agent.history.shares_metrics)
    except Exception as error:
        if len(requests) == 1:
            errors[id(requests[0][0])] = error
    if len(requests) == 1:
        errors.setdefault(id(requests[0][0]), RunFailed("the client made no reply"))
    for key, (message, context) in unanswered.items():
        if key in errors:
            _keep_refusal(message, context, errors[key])
            yield refusal(message, type(errors[key]).__name__)
        else:
            yield from _respond([(message, context)])


def _keep_refusal(message: Message, context: Context, error: Exception) -> None:
    """Log an error, and add all of it to `refusals.jsonl` in the run folder; these clients are nobody's."""
    logger.warning("client %d: %s", _partition(context), error)
    values = {
        "client": str(context.node_config["partition-id"]),
        "request": message.metadata.message_type,
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
    append_text(_clients(context).parent / REFUSALS, json.dumps(values) + "\n")


def _act(agents: Iterable[Agent], message: Message, context: Context) -> Iterator[Result]:
    items = items_of(_clients(context), _partition(context))
    config = {**message.content.config_records[SETTINGS_RECORD]}
    kind = message.metadata.message_type
    if kind in (MOMENTS_TYPE, PROBE_TYPE):
        settings, memory = PairSettings.from_config(config), _memory(_clients(context))
        if kind == MOMENTS_TYPE:
            return _each(agents, lambda agent: moments(agent, settings, memory))
        probing = Probing(**probe_request(message))
        return _each(agents, lambda agent: probe(agent, settings, probing, memory))
    if kind == LAYER_GRADIENT_TYPE:
        gradient = LayerGradientSettings.from_config(config)
        return _each(agents, lambda agent: report_layer_gradient(agent, gradient))
    if kind == SUM_TYPE:
        asked = SumRequest(
            SumSettings.from_config(config),
            CoordinateSettings.from_config(config),
            round_of(message),
            *envelopes_of(message),
        )
        return _each(agents, lambda agent: _told(agent, asked))
    packed = broadcast(message)
    if kind == CONTRIBUTE_TYPE:
        training, wanted = TrainingSettings.from_config(config), CoordinateSettings.given(config)
        if wanted is None:
            return contribute(agents, packed, training, items)
        request = CoordinateRequest(packed, wanted, sent_basis(message), SumSettings.given(config))
        return contribute_coordinates(agents, request, training, items)
    if kind == PERSONALIZE_TYPE:
        personal = PersonalSettings.from_config(config)
        return personalize(agents, packed, personal, TrainingSettings.from_config(config), items)
    return evaluate(agents, packed, EvaluationSettings.from_config(config), items)


def _told(agent: Agent, request: SumRequest) -> ToldSum:
    answer = tell_sum(agent.sums, request)
    return ToldSum(len(request.clients), {}, answer.total, answer.bad)


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
    if isinstance(result, ToldSum):
        return sum_reply(message, result.total, result.bad)
    update = result.update if isinstance(result, Contribution) else None
    sealed = "sum-run" in message.content.config_records[SETTINGS_RECORD]
    metrics = result.metrics if shares_metrics and not sealed else None
    if update is not None and CoordinateSettings.given(message.content.config_records[SETTINGS_RECORD]):
        return coordinate_reply(message, result.items, metrics, update)
    return reply(message, result.items, metrics, update)


def _agent(context: Context) -> Agent:
    """Make the agent of this node from the folder that its partition names in the run folder."""
    items = items_of(_clients(context), _partition(context))
    encoder = read_about(_clients(context)).get("encoder", "")
    agent = Agent(_folder(context), items.base, items, encoder=encoder)
    directory = read_enrolled(_clients(context))
    if directory is not None:
        agent.sums = SumParty(_folder(context), agent.history.name, directory)
    return agent


def _folder(context: Context) -> Path:
    return _clients(context) / str(_partition(context))


def _partition(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _clients(context: Context) -> Path:
    return run_folder(context.run_config, context.run_id) / CLIENTS


@lru_cache(maxsize=1)
def read_enrolled(clients: Path) -> Directory | None:
    """Return the keys that `clients` are enrolled with for secure sums; None where they are not.

    Args:
        clients: Folder of the clients of a run.

    Raises:
        InputError: Naming the file, if it is broken.
    """
    path = clients / ENROLLED
    if not path.exists():
        return None
    value = read_json(path)
    try:
        return Directory.from_json(value)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


@lru_cache(maxsize=1)
def _memory(clients: Path) -> Memory:
    """Return what the agents of one run remember between messages, as agents are made anew for each."""
    return Memory()
