"""ClientApp of a deployed edge: passes messages on to the agent's socket, and its replies back.

It runs in a fresh process per message, beside what talks to the cloud all day, so it can do no more than the
agent's bridge allows. It imports neither torch nor transformers and starts in about a second.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from google.protobuf.message import Message as Proto

from fedperfit.edge.deployment.endpoint import BRIDGE_KEY, connect
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
from fedperfit.protocol.messages.broadcast import broadcast
from fedperfit.protocol.messages.keys import (
    BASIS_KEY,
    LAYER_GRADIENT_KEY,
    MOMENTS_KEY,
    SETTINGS_RECORD,
    SUMS_KEY,
)
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc
from fedperfit.protocol.settings.names import key_of
from fedperfit.protocol.system.errors import InputError

app = ClientApp()
_Part = TypeVar("_Part", bound=Proto)
_SCORES = {
    "correct": "correct",
    "absolute_error": "absolute-error",
    "squared_error": "squared-error",
    "rouge_1": "rouge-1",
    "rouge_l": "rouge-L",
    "chrf": "chrf",
    "bleu": "bleu",
    "true_positives": "true-positives",
    "predicted": "predicted",
    "gold": "gold",
}


@app.query("status")
def status(message: Message, context: Context) -> Message:
    """Ask the agent who this client is and what it could do."""

    def ask(stub: Any, timeout: float) -> Message:
        answer = stub.Status(bridge_pb2.StatusRequest(), timeout=timeout)
        return status_reply(message, **{field.name: value for field, value in _all(answer)})

    return _asked(message, context, ask)


@app.train("contribute")
def contribute(message: Message, context: Context) -> Message:
    """Have the agent train the collective shift for a round of stage 1."""

    def ask(stub: Any, timeout: float) -> Message:
        in_basis = BASIS_KEY in _config(message)
        request = bridge_pb2.ContributeRequest(
            shift=broadcast(message),
            training=_filled(bridge_pb2.Training, message),
            coordinates=_filled(bridge_pb2.Coordinates, message) if in_basis else None,
            basis=sent_basis(message),
            sums=_filled(bridge_pb2.SumTerms, message) if "sum-run" in _config(message) else None,
        )
        answer = stub.Contribute(request, timeout=timeout)
        if in_basis:
            update = answer.sealed or answer.update
            return coordinate_reply(message, answer.items, _loss(answer), update)
        return reply(message, answer.items, _loss(answer), answer.update)

    return _asked(message, context, ask)


@app.train("personalize")
def personalize(message: Message, context: Context) -> Message:
    """Have the agent fit the personal shift of stage 2, which stays with it."""

    def ask(stub: Any, timeout: float) -> Message:
        request = bridge_pb2.PersonalizeRequest(
            release=broadcast(message),
            personal=_filled(bridge_pb2.Personal, message),
            training=_filled(bridge_pb2.Training, message),
        )
        answer = stub.Personalize(request, timeout=timeout)
        return reply(message, answer.items, _loss(answer))

    return _asked(message, context, ask)


@app.train("moments")
def moments(message: Message, context: Context) -> Message:
    """Ask the agent for the moments of its preference pairs."""

    def ask(stub: Any, timeout: float) -> Message:
        answer = stub.Moments(
            bridge_pb2.MomentsRequest(pairs=_filled(bridge_pb2.Pairs, message)), timeout=timeout
        )
        return reply(message, answer.pairs, statistics={MOMENTS_KEY: answer.moments})

    return _asked(message, context, ask)


@app.train("probe")
def probe(message: Message, context: Context) -> Message:
    """Ask the agent for a probe's loss and gradient, summed over its preference pairs."""

    def ask(stub: Any, timeout: float) -> Message:
        asked = probe_request(message)
        request = bridge_pb2.ProbeRequest(
            pairs=_filled(bridge_pb2.Pairs, message),
            probes=asked["probes"],
            view_digest=asked["digest"],
            view=asked["view"],
        )
        answer = stub.Probe(request, timeout=timeout)
        return reply(message, answer.pairs, statistics={SUMS_KEY: answer.sums} if answer.sums else None)

    return _asked(message, context, ask)


@app.train("pull")
def layer_gradient(message: Message, context: Context) -> Message:
    """Ask the agent for the gradient of the person's mean loss with respect to each layer's output."""

    def ask(stub: Any, timeout: float) -> Message:
        answer = stub.Pull(_filled(bridge_pb2.PullRequest, message), timeout=timeout)
        return reply(message, answer.pairs, statistics={LAYER_GRADIENT_KEY: answer.pull})

    return _asked(message, context, ask)


@app.train("sum")
def tell_sum(message: Message, context: Context) -> Message:
    """Ask the agent, as member of a committee, for the sum of what others sealed to it."""

    def ask(stub: Any, timeout: float) -> Message:
        clients, envelopes = envelopes_of(message)
        request = bridge_pb2.SumRequest(
            terms=_filled(bridge_pb2.SumTerms, message),
            coordinates=_filled(bridge_pb2.Coordinates, message),
            round=round_of(message),
            clients=clients,
            envelopes=envelopes,
        )
        answer = stub.Sum(request, timeout=timeout)
        return sum_reply(message, answer.sum, answer.bad)

    return _asked(message, context, ask)


@app.evaluate("stage")
def evaluate(message: Message, context: Context) -> Message:
    """Ask the agent for metric sums of one stage on its own questions."""

    def ask(stub: Any, timeout: float) -> Message:
        request = bridge_pb2.EvaluateRequest(
            release=broadcast(message), evaluation=_filled(bridge_pb2.Evaluation, message)
        )
        answer = stub.Evaluate(request, timeout=timeout)
        return reply(message, answer.items, _scores(answer))

    return _asked(message, context, ask)


def _asked(message: Message, context: Context, ask: Callable[[Any, float], Message]) -> Message:
    try:
        with connect(Path(str(context.node_config[BRIDGE_KEY]))) as channel:
            return ask(bridge_pb2_grpc.BridgeStub(channel), message.metadata.ttl)
    except grpc.RpcError as error:
        return refusal(message, error.details() if error.code() in _TOLD else error.code().name)
    except Exception as error:
        return refusal(message, type(error).__name__)


_TOLD = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""gRPC statuses whose text is the type of the agent's error."""


def _filled(part: type[_Part], message: Message) -> _Part:
    """One part of a request, from the message's settings; whether they make sense is the agent's to check.

    Raises:
        InputError: A setting is missing, or of another type than the schema's.
    """
    config = _config(message)
    names = [field.name for field in part.DESCRIPTOR.fields]
    try:
        filled: _Part = part(**{name: config[key_of(name)] for name in names})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"settings of {part.__name__}: {error}") from None
    return filled


def _config(message: Message) -> dict[str, Any]:
    return {**message.content.config_records[SETTINGS_RECORD]}


def _loss(answer: Any) -> dict[str, float | list[int]] | None:
    return {"loss": answer.loss} if answer.HasField("loss") else None


def _scores(answer: Any) -> dict[str, float | list[int]] | None:
    if not answer.HasField("scores"):
        return None
    present = {field.name: value for field, value in answer.scores.ListFields()}
    return {
        key: list(present[name]) if name in ("true_positives", "predicted", "gold") else present[name]
        for name, key in _SCORES.items()
        if name in present
    }


def _all(answer: Proto) -> list[tuple[Any, Any]]:
    """All fields with their values, default values too."""
    return [(field, getattr(answer, field.name)) for field in answer.DESCRIPTOR.fields]
