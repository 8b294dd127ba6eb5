"""Serves a deployed agent by two gRPC services, each a thin layer over `edge.deployment.deployed`.

Over the bridge an error is told by its type alone, for its text could quote a person's history; the owner
gets the text. Each call takes a request of its schema and gRPC's context, and raises nothing: errors are
statuses.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import wraps
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from google.protobuf.message import Message

from fedperfit.edge.agent.basis_file import CoordinateRequest
from fedperfit.edge.agent.consent import read_consent, shares_metrics
from fedperfit.edge.agent.outcome import Outcome
from fedperfit.edge.asking.asking import Asked
from fedperfit.edge.audit.log import Unrecorded
from fedperfit.edge.audit.rates import Rates, TooManyRequests
from fedperfit.edge.audit.record import Record
from fedperfit.edge.chameleon.contribution import Probing
from fedperfit.edge.deployment.call_errors import CallContext, status_of, tells_errors, tells_stream_errors
from fedperfit.edge.deployment.deployed import Deployed
from fedperfit.edge.deployment.explanation import explanation
from fedperfit.edge.engine.generation import Sampling
from fedperfit.edge.sums.requests import SumRequest
from fedperfit.edge.vault.traces import check_leaving
from fedperfit.edge.writing.scores import TokenScore
from fedperfit.edge.writing.streaming import Finished
from fedperfit.protocol.messages.settings import (
    CoordinateSettings,
    EvaluationSettings,
    LayerGradientSettings,
    PairSettings,
    PersonalSettings,
    TrainingSettings,
)
from fedperfit.protocol.messages.sums import SumSettings
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc, owner_pb2, owner_pb2_grpc
from fedperfit.protocol.system.errors import FedperfitError, InputError
from fedperfit.protocol.tasks import Turn
from fedperfit.protocol.tasks.remarks import summed_up

_TOLD_PLACES = 100
"""Lines of each kind of remark that a lesson tells."""
_Part = str | Sequence[TokenScore]
_Call = Callable[[Any, Any, CallContext], Message]


def _recorded(name: str) -> Callable[[_Call], _Call]:
    """Decorate a call over the bridge: its request is recorded when it comes, its reply before it leaves.

    A reply that holds numbers of the personal shift does not leave, whatever put them there.

    Args:
        name: kind of request.
    """

    def decorate(call: _Call) -> _Call:
        @wraps(call)
        def answer(service: Any, request: Any, context: CallContext) -> Message:
            record: Record = service._deployed.record
            number = 0
            try:
                service._rates.take(name)
                number = record.received(name, request)
                service._check_consent(name)
                reply = call(service, request, context)
                service._check_consent(name)  # it may have been withdrawn meanwhile
                vault = service._deployed.agent.vault
                check_leaving(vault, reply.SerializeToString(), known=request.SerializeToString())
                record.answered(number, name, reply)
                return reply
            except Exception as error:  # its text could quote a person's history
                _record_refusal(record, number, name, error)
                context.abort(status_of(error), type(error).__name__)

        return answer

    return decorate


def _record_refusal(record: Record, number: int, name: str, error: Exception) -> None:
    kind = type(error).__name__
    if isinstance(error, TooManyRequests):
        record.turned_away(name, kind)
        return
    reason = str(error) if isinstance(error, FedperfitError) else kind
    with suppress(Unrecorded):  # the log counts what it could not write
        record.refused(number, name, kind, reason)


class BridgeService(bridge_pb2_grpc.BridgeServicer):
    """Calls the cloud may make, through the SuperNode."""

    def __init__(self, deployed: Deployed) -> None:
        """Serve one deployed agent."""
        self._deployed = deployed
        self._rates = Rates()

    @_recorded("status")
    def Status(self, request: bridge_pb2.StatusRequest, context: CallContext) -> Message:
        """Tell who this client is, which base model and task it has, and how many items."""
        agent = self._deployed.agent
        history = agent.history
        return bridge_pb2.StatusReply(
            client=history.name,
            fingerprint=agent.base.card.fingerprint,
            task=history.task.id,
            history=len(history.items) + len(history.answered),
            questions=len(history.questions),
            shares_metrics=shares_metrics(self._deployed.home.folder),
        )

    @_recorded("contribute")
    def Contribute(self, request: bridge_pb2.ContributeRequest, context: CallContext) -> Message:
        """Train the collective shift for one round of stage 1 and return the update."""
        training = TrainingSettings(**_fields(request.training))
        if request.HasField("coordinates"):
            wanted = CoordinateSettings(**_fields(request.coordinates))
            terms = SumSettings(**_fields(request.sums)) if request.HasField("sums") else None
            asked = CoordinateRequest(request.shift, wanted, request.basis, terms)
            done = self._deployed.contribute_coordinates(asked, training, context.is_active)
            if terms is not None:
                return bridge_pb2.ContributeReply(sealed=done.update, items=done.items)
        else:
            done = self._deployed.contribute(request.shift, training, context.is_active)
        return bridge_pb2.ContributeReply(update=done.update, items=done.items, **self._shared(done))

    @_recorded("personalize")
    def Personalize(self, request: bridge_pb2.PersonalizeRequest, context: CallContext) -> Message:
        """Fit the personal shift of stage 2, which stays here; return counts, and the loss if shared."""
        personal = PersonalSettings(**_fields(request.personal))
        training = TrainingSettings(**_fields(request.training))
        done = self._deployed.personalize(request.release, personal, training, context.is_active)
        return bridge_pb2.PersonalizeReply(items=done.items, **self._shared(done))

    @_recorded("evaluate")
    def Evaluate(self, request: bridge_pb2.EvaluateRequest, context: CallContext) -> Message:
        """Answer the held-out questions at one stage and return metric sums, if shared."""
        evaluation = EvaluationSettings(**_fields(request.evaluation))
        done = self._deployed.evaluate(request.release, evaluation, context.is_active)
        scores = {name.replace("-", "_").lower(): value for name, value in self._shared(done).items()}
        return bridge_pb2.EvaluateReply(
            items=done.items, scores=bridge_pb2.Scores(**scores) if scores else None
        )

    @_recorded("moments")
    def Moments(self, request: bridge_pb2.MomentsRequest, context: CallContext) -> Message:
        """Make preference pairs of the history and return their moments."""
        pairs = PairSettings(**_fields(request.pairs))
        done = self._deployed.moments(pairs, context.is_active)
        return bridge_pb2.MomentsReply(moments=done.data, pairs=done.items)

    @_recorded("probe")
    def Probe(self, request: bridge_pb2.ProbeRequest, context: CallContext) -> Message:
        """Return a probe's loss and gradient, summed over the preference pairs."""
        pairs = PairSettings(**_fields(request.pairs))
        probing = Probing(request.probes, request.view_digest, request.view)
        done = self._deployed.probe(pairs, probing, context.is_active)
        return bridge_pb2.ProbeReply(sums=done.data, pairs=done.items)

    @_recorded("pull")
    def Pull(self, request: bridge_pb2.PullRequest, context: CallContext) -> Message:
        """Return the gradient of the person's mean loss with respect to each layer's output."""
        done = self._deployed.layer_gradient(LayerGradientSettings(**_fields(request)), context.is_active)
        return bridge_pb2.PullReply(pull=done.data, pairs=done.items)

    @_recorded("sum")
    def Sum(self, request: bridge_pb2.SumRequest, context: CallContext) -> Message:
        """Return, as member of a committee, the sum of what others sealed to this machine, once a round."""
        asked = SumRequest(
            terms=SumSettings(**_fields(request.terms)),
            wanted=CoordinateSettings(**_fields(request.coordinates)),
            round=request.round,
            clients=tuple(request.clients),
            envelopes=tuple(request.envelopes),
        )
        told = self._deployed.sums.tell(asked)
        return bridge_pb2.SumReply(sum=told.total, bad=told.bad)

    def _shared(self, done: Outcome) -> dict[str, Any]:
        return {**done.metrics} if shares_metrics(self._deployed.home.folder) else {}

    def _check_consent(self, kind: str) -> None:
        folder = self._deployed.home.folder
        consent = read_consent(folder)
        self._deployed.record.consented({**asdict(consent), "shares_metrics": shares_metrics(folder)})
        consent.check(kind)


class OwnerService(owner_pb2_grpc.OwnerServicer):
    """Calls the owner may make."""

    def __init__(self, deployed: Deployed) -> None:
        """Serve one deployed agent."""
        self._deployed = deployed

    @tells_errors
    def Explain(self, request: owner_pb2.ExplainRequest, context: CallContext) -> owner_pb2.Explanation:
        """Describe what the agent is, holds and does; never waits for the model."""
        return explanation(self._deployed, self._deployed.state())

    @tells_stream_errors
    def Sent(self, request: owner_pb2.SentRequest, context: CallContext) -> Iterator[owner_pb2.SentMessage]:
        """Stream messages that left this machine, oldest first, from where the owner read last."""
        for message in self._deployed.record.messages(request.after, request.newest):
            fields = [owner_pb2.SentField(**vars(field)) for field in message.fields]
            yield owner_pb2.SentMessage(**(vars(message) | {"fields": fields}))

    @tells_stream_errors
    def Learned(
        self, request: owner_pb2.LearnedRequest, context: CallContext
    ) -> Iterator[owner_pb2.LearnedReply]:
        """Stream the items that were learned, one by one."""
        for item in self._deployed.agent.vault.learned():
            yield owner_pb2.LearnedReply(items=[json.dumps(item, ensure_ascii=False)])

    @tells_errors
    def Unlearn(self, request: owner_pb2.UnlearnRequest, context: CallContext) -> owner_pb2.UnlearnReply:
        """Remove learned items and fit the personal shift anew."""
        learned, fitted = self._deployed.unlearn(request.numbers, context.is_active)
        return owner_pb2.UnlearnReply(learned=learned, fitted=fitted)

    @tells_errors
    def Learn(self, request: owner_pb2.LearnRequest, context: CallContext) -> owner_pb2.LearnReply:
        """Add items to the history and take a few training steps on them."""
        lesson = self._deployed.learn(list(map(_item, request.items)), context.is_active)
        return owner_pb2.LearnReply(
            learned=lesson.learned,
            steps=lesson.steps,
            loss=lesson.loss if math.isfinite(lesson.loss) else 0.0,
            remarks=summed_up(lesson.remarks, _TOLD_PLACES),
            added=lesson.added,
        )

    @tells_stream_errors
    def Generate(self, request: owner_pb2.GenerateRequest, context: CallContext) -> Iterator[owner_pb2.Piece]:
        """Continue a text piece by piece; the last piece says why it ended."""
        sampling = Sampling(
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed if request.HasField("seed") else None,
            max_new_tokens=request.max_new_tokens,
        )
        turns = tuple(Turn(turn.role, turn.text) for turn in request.turns)
        asked = Asked(
            prompt=turns or request.prompt,
            stage=request.stage,
            sampling=sampling,
            tokens=tuple(request.tokens),
            likeliest=request.likeliest if request.HasField("likeliest") else None,
            echo=request.echo,
            task_form=request.task_form,
            stops=tuple(stop for stop in request.stops if stop),
        )

        def work(on_part: Callable[[_Part, str], None]) -> tuple[Finished, str]:
            return self._deployed.generate(asked, on_part, context.is_active)

        for part, stage in _pieces(work):
            yield _piece(part, stage)

    @tells_errors
    def Answer(self, request: owner_pb2.AnswerRequest, context: CallContext) -> owner_pb2.AnswerReply:
        """Answer a question of the task, and name the stage that answered."""
        text, stage = self._deployed.answer(request.question, request.stage, context.is_active)
        return owner_pb2.AnswerReply(text=text, stage=stage)

    @tells_errors
    def Forget(self, request: owner_pb2.ForgetRequest, context: CallContext) -> owner_pb2.ForgetReply:
        """Delete all personal shifts, learned items, an imported history and the key that protected them."""
        return owner_pb2.ForgetReply(**self._deployed.forget()._asdict())


def _piece(part: "_Part | Finished", stage: str) -> owner_pb2.Piece:
    if isinstance(part, str):
        return owner_pb2.Piece(text=part, stage=stage)
    if not isinstance(part, Finished):
        return owner_pb2.Piece(scores=map(_score, part), stage=stage)
    return owner_pb2.Piece(
        finish=part.reason,
        prompt_tokens=part.prompt_tokens,
        completion_tokens=part.completion_tokens,
        stage=stage,
        task=part.task,
    )


def _score(score: TokenScore) -> owner_pb2.TokenScore:
    return owner_pb2.TokenScore(text=score.text, score=score.score, likeliest=map(_score, score.likeliest))


def _fields(message: Message) -> dict[str, Any]:
    return {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}


def _item(line: str) -> Any:
    """Return an item, None for an empty line, or the error where it is not JSON."""
    try:
        return json.loads(line) if line.strip() else None
    except (ValueError, RecursionError):
        return InputError("not JSON")


def _pieces(
    work: Callable[[Callable[[_Part, str], None]], tuple[Finished, str]],
) -> Iterator[tuple[_Part | Finished, str]]:
    """Yield what `work` hands to its argument as it comes, then its result; its error is raised here."""
    queue: SimpleQueue[tuple[_Part | Finished, str] | Exception] = SimpleQueue()

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
