"""The agent's two gRPC services, each a thin layer over `edge.deployment.deployed`.

Over the bridge an error is told by its type alone, for its text could quote a person's history; the owner
gets the text.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import Message

from fedperfit.edge.agent.agent import Outcome
from fedperfit.edge.chameleon.contribution import Probing
from fedperfit.edge.deployment.deployed import Deployed, State, finite
from fedperfit.edge.deployment.fair_lock import Busy, Cancelled
from fedperfit.edge.engine.streaming import Finished, Sampling
from fedperfit.protocol.messages.settings import (
    EvaluationSettings,
    LayerGradientSettings,
    PairSettings,
    PersonalSettings,
    TrainingSettings,
)
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc, owner_pb2, owner_pb2_grpc
from fedperfit.protocol.system.errors import InputError

_Code: TypeAlias = grpc.StatusCode


class BridgeService(bridge_pb2_grpc.BridgeServicer):
    """What the cloud may ask, through the SuperNode."""

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed

    def Status(self, request: bridge_pb2.StatusRequest, context: Any) -> bridge_pb2.StatusReply:
        """Who this client is and what it could do."""
        agent = self._deployed.agent
        history = agent.history
        reply = bridge_pb2.StatusReply(
            client=history.name,
            fingerprint=agent.base.card.fingerprint,
            task=history.task.name,
            history=len(history.items) + len(history.answered),
            questions=len(history.questions),
            shares_metrics=history.shares_metrics,
        )
        self._deployed.sent.add("status", reply)
        return reply

    def Contribute(self, request: bridge_pb2.ContributeRequest, context: Any) -> Message:
        """One round of stage 1."""

        def act() -> Message:
            training = TrainingSettings(**_fields(request.training))
            done = self._deployed.contribute(request.shift, training, context.is_active)
            return bridge_pb2.ContributeReply(update=done.update, items=done.items, **self._shared(done))

        return self._answer("contribute", act, context)

    def Personalize(self, request: bridge_pb2.PersonalizeRequest, context: Any) -> Message:
        """Stage 2; what it learns stays here."""

        def act() -> Message:
            personal = PersonalSettings(**_fields(request.personal))
            training = TrainingSettings(**_fields(request.training))
            done = self._deployed.personalize(request.release, personal, training, context.is_active)
            return bridge_pb2.PersonalizeReply(items=done.items, **self._shared(done))

        return self._answer("personalize", act, context)

    def Evaluate(self, request: bridge_pb2.EvaluateRequest, context: Any) -> Message:
        """Metric sums of one stage."""

        def act() -> Message:
            evaluation = EvaluationSettings(**_fields(request.evaluation))
            done = self._deployed.evaluate(request.release, evaluation, context.is_active)
            scores = {name.replace("-", "_").lower(): value for name, value in self._shared(done).items()}
            return bridge_pb2.EvaluateReply(
                items=done.items, scores=bridge_pb2.Scores(**scores) if scores else None
            )

        return self._answer("evaluate", act, context)

    def Moments(self, request: bridge_pb2.MomentsRequest, context: Any) -> Message:
        """What the person tells of their preference pairs."""

        def act() -> Message:
            pairs = PairSettings(**_fields(request.pairs))
            done = self._deployed.moments(pairs, context.is_active)
            return bridge_pb2.MomentsReply(moments=done.data, pairs=done.items)

        return self._answer("moments", act, context)

    def Probe(self, request: bridge_pb2.ProbeRequest, context: Any) -> Message:
        """Sums of a probe's loss and gradient over the pairs."""

        def act() -> Message:
            pairs = PairSettings(**_fields(request.pairs))
            asked = Probing(request.probes, request.view_digest, request.view)
            done = self._deployed.probe(pairs, asked, context.is_active)
            return bridge_pb2.ProbeReply(sums=done.data, pairs=done.items)

        return self._answer("probe", act, context)

    def Pull(self, request: bridge_pb2.PullRequest, context: Any) -> Message:
        """The gradient of the person's mean loss at each layer."""

        def act() -> Message:
            done = self._deployed.layer_gradient(LayerGradientSettings(**_fields(request)), context.is_active)
            return bridge_pb2.PullReply(pull=done.data, pairs=done.items)

        return self._answer("pull", act, context)

    def _shared(self, done: Outcome) -> dict[str, Any]:
        return {**done.metrics} if self._deployed.agent.history.shares_metrics else {}

    def _answer(self, call: str, act: Callable[[], Message], context: Any) -> Message:
        def refuse(code: _Code, error: Exception) -> NoReturn:
            kind = type(error).__name__
            self._deployed.sent.add_error(call, kind)
            context.abort(code, kind)
            raise AssertionError

        with _refusing(refuse):
            reply = act()
            self._deployed.sent.add(call, reply)
            return reply
        raise AssertionError


class OwnerService(owner_pb2_grpc.OwnerServicer):
    """What the owner may ask."""

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed

    def Explain(self, request: owner_pb2.ExplainRequest, context: Any) -> owner_pb2.Explanation:
        """What the agent is, holds and does."""
        with _telling(context):
            return _explanation(self._deployed, self._deployed.state())
        raise AssertionError

    def Sent(self, request: owner_pb2.SentRequest, context: Any) -> Iterator[owner_pb2.SentMessage]:
        """Every message that left this machine."""
        with _telling(context):
            for message in self._deployed.sent.messages():
                fields = [owner_pb2.SentField(**vars(field)) for field in message.fields]
                yield owner_pb2.SentMessage(
                    time=message.time, call=message.call, bytes=message.bytes, fields=fields
                )

    def Learn(self, request: owner_pb2.LearnRequest, context: Any) -> owner_pb2.LearnReply:
        """Add items to the history."""
        with _telling(context):
            lesson = self._deployed.learn(_items(request.items), context.is_active)
            return owner_pb2.LearnReply(
                learned=lesson.learned, steps=lesson.steps, loss=finite(lesson.loss) or 0.0
            )
        raise AssertionError

    def Generate(self, request: owner_pb2.GenerateRequest, context: Any) -> Iterator[owner_pb2.Piece]:
        """Continue a text, piece by piece."""
        with _telling(context):
            sampling = Sampling(
                temperature=request.temperature,
                top_p=request.top_p,
                seed=request.seed,
                max_new_tokens=request.max_new_tokens,
            )
            turns = [(turn.role, turn.text) for turn in request.turns]

            def work(on_text: Callable[[str, str], None]) -> tuple[Finished, str]:
                return self._deployed.generate(
                    request.prompt, turns, request.stage, sampling, on_text, context.is_active
                )

            for piece in _pieces(work):
                told, stage = piece
                if isinstance(told, str):
                    yield owner_pb2.Piece(text=told, stage=stage)
                    continue
                yield owner_pb2.Piece(
                    finish=told.reason,
                    prompt_tokens=told.prompt_tokens,
                    completion_tokens=told.completion_tokens,
                    stage=stage,
                )

    def Answer(self, request: owner_pb2.AnswerRequest, context: Any) -> owner_pb2.AnswerReply:
        """The answer to a question of the task."""
        with _telling(context):
            text, stage = self._deployed.answer(request.question, request.stage, context.is_active)
            return owner_pb2.AnswerReply(text=text, stage=stage)
        raise AssertionError

    def Forget(self, request: owner_pb2.ForgetRequest, context: Any) -> owner_pb2.ForgetReply:
        """Delete what is personal, and the key that protected it."""
        with _telling(context):
            shifts, learned = self._deployed.forget()
            return owner_pb2.ForgetReply(shifts=shifts, learned=learned)
        raise AssertionError


@contextmanager
def _telling(context: Any) -> Iterator[None]:
    def refuse(code: _Code, error: Exception) -> NoReturn:
        context.abort(code, str(error) or type(error).__name__)
        raise AssertionError

    with _refusing(refuse):
        yield


@contextmanager
def _refusing(refuse: Callable[[_Code, Exception], NoReturn]) -> Iterator[None]:
    """Every error as a status of its own."""
    try:
        yield
    except InputError as error:
        refuse(_Code.FAILED_PRECONDITION, error)
    except Busy as error:
        refuse(_Code.RESOURCE_EXHAUSTED, error)
    except Cancelled as error:
        refuse(_Code.CANCELLED, error)
    except Exception as error:  # a traceback could quote what must stay here
        refuse(_Code.INTERNAL, error)


def _fields(message: Message) -> dict[str, Any]:
    return {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}


def _items(lines: Any) -> list[dict[str, Any]]:
    items = []
    for number, line in enumerate(lines, start=1):
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"item {number} is not JSON") from None
        if not isinstance(item, dict):
            raise InputError(f"item {number} is not a JSON object")
        items.append(item)
    if not items:
        raise InputError("there is no item to learn")
    return items


def _pieces(
    work: Callable[[Callable[[str, str], None]], tuple[Finished, str]],
) -> Iterator[tuple[str | Finished, str]]:
    """What `work` hands to its argument, as it comes, then its result; its error is raised here."""
    queue: SimpleQueue[tuple[str | Finished, str] | Exception] = SimpleQueue()

    def run() -> None:
        try:
            queue.put(work(lambda text, stage: queue.put((text, stage))))
        except Exception as error:
            queue.put(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    while True:
        try:
            piece = queue.get(timeout=1)
        except Empty:
            continue
        if isinstance(piece, Exception):
            raise piece
        yield piece
        if isinstance(piece[0], Finished):
            return


def _explanation(deployed: Deployed, state: State) -> owner_pb2.Explanation:
    history = deployed.agent.history
    learned = len(deployed.agent.vault.learned())
    explanation = owner_pb2.Explanation(
        client=history.name,
        base_model=deployed.settings.base_model,
        fingerprint=deployed.agent.base.card.fingerprint,
        task=history.task.name,
        shares_metrics=history.shares_metrics,
        history_items=len(history.items) - learned,
        learned_items=learned,
        stage=state.stage,
        busy=state.busy,
        problem=state.problem,
    )
    if state.release is not None:
        release, shape = state.release, state.release.header.shape
        explanation.release.MergeFrom(
            owner_pb2.ReleaseState(
                version=release.version,
                digest=release.digest,
                issued=release.issued,
                expires=release.expires,
                rounds=release.header.round,
                layers=shape.layers,
                positions=str(shape.positions),
                rank=shape.rank,
                edited=release.directions.layers if release.directions is not None else (),
            )
        )
    if state.personal is not None:
        account = state.personal.account
        explanation.personal.MergeFrom(
            owner_pb2.PersonalState(
                rank=state.personal.shape.rank,
                parameters=state.personal.shape.parameters,
                items=account.items,
                release=account.version,
                stored=account.stored,
                origin=account.origin,
                judged=[owner_pb2.Judged(stage=s, loss=loss) for s, loss in account.judged.items()],
            )
        )
    return explanation
