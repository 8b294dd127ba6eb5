"""The part of OpenAI's interface that a text generator has: models, completions of both kinds, responses."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from fedperfit.edge.web.failures import error_fields, failure
from fedperfit.edge.web.hanging_up import unless_gone
from fedperfit.edge.web.owner import AgentError, Owner
from fedperfit.edge.web.replies import Answered, Form, event, usage_of
from fedperfit.edge.web.requests import Asking, Chat, Completion, Generating, Respond, Turn
from fedperfit.edge.web.responses import ResponseForm
from fedperfit.protocol.messages.settings import Stage
from fedperfit.protocol.schema import owner_pb2

SUITING = "fedperfit"
"""Name of the model that answers at the stage that suits the person best; answers name the stage."""
PREFIX = "fedperfit-"
"""First part of a model's name, before its stage."""


def router(owner: Owner, *, task_form: bool) -> APIRouter:
    """Make the routes below /v1, which pass requests to the owner's agent.

    Args:
        owner: the owner's agent.
        task_form: whether a conversation that closes with a question of the task is asked in its form.
    """
    routes = APIRouter(prefix="/v1")

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in _names(await owner.state())]}

    @routes.get("/models/{name}")
    async def model(name: str) -> Response:
        if name in _names(await owner.state()):
            return JSONResponse(_model(name))
        return _unknown(name)

    @routes.post("/completions")
    async def completions(body: Completion, request: Request) -> Response:
        asked = []
        for prompt in body.prompts:
            one = _sampling(body, body.max_completion_tokens or body.max_tokens)
            one.echo = bool(body.echo)
            one.stops.extend(body.stops)
            if body.logprobs is not None:
                one.likeliest = body.logprobs
            if isinstance(prompt, str):
                one.prompt = prompt
            else:
                one.tokens.extend(prompt)
            asked.append(one)
        return await unless_gone(request, _answer(owner, body, asked, chat=False))

    @routes.post("/chat/completions")
    async def chat_completions(body: Chat, request: Request) -> Response:
        asked = _sampling(body, body.max_completion_tokens or body.max_tokens)
        asked.stops.extend(body.stops)
        if body.logprobs:
            asked.likeliest = body.top_logprobs or 0
        prompts = [_in_turns(asked, body.messages, task_form)]
        return await unless_gone(request, _answer(owner, body, prompts, chat=True))

    @routes.post("/responses")
    async def responses(body: Respond, request: Request) -> Response:
        if not _known(body.model):
            return _unknown(body.model)
        asked = _in_turns(_sampling(body, body.max_output_tokens), body.turns, task_form)
        return await unless_gone(request, _respond(owner.generate(asked), body))

    return routes


def _names(state: dict[str, Any]) -> list[str]:
    stages = [
        *[Stage.BASE],
        *([Stage.COLLECTIVE] if "release" in state else []),
        *([Stage.DIRECTIONS] if state.get("release", {}).get("edited") else []),
        *([Stage.PERSONAL] if "personal" in state and not _stale(state) else []),
    ]
    return [SUITING, *(PREFIX + stage for stage in stages)]


def _stale(state: dict[str, Any]) -> bool:
    """Whether the personal shift was made for a release before the one in force."""
    return bool(state["personal"]["release"] != state.get("release", {}).get("version"))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "you"}


def _known(name: str) -> bool:
    return name in (SUITING, *(PREFIX + stage for stage in Stage))


def _unknown(name: str) -> JSONResponse:
    return failure(404, f"the model {name!r} does not exist", code="model_not_found")


def _sampling(body: Asking, most: int | None) -> owner_pb2.GenerateRequest:
    return owner_pb2.GenerateRequest(
        stage="" if body.model == SUITING else body.model.removeprefix(PREFIX),
        max_new_tokens=most or 0,
        temperature=body.temperature or 0.0,
        top_p=body.top_p or 0.0,
    )


def _in_turns(
    asked: owner_pb2.GenerateRequest, turns: Sequence[Turn], task_form: bool
) -> owner_pb2.GenerateRequest:
    asked.turns.extend(owner_pb2.Turn(role=turn.role, text=turn.content) for turn in turns)
    asked.task_form = task_form
    return asked


async def _answer(
    owner: Owner,
    body: Generating,
    prompts: Sequence[owner_pb2.GenerateRequest],
    *,
    chat: bool,
) -> Response:
    if not _known(body.model):
        return _unknown(body.model)
    answers: list[Answered] = []
    parts = _parts(owner, body, prompts, answers)
    first = await anext(parts)  # an error of the agent is still an HTTP status
    scored = prompts[0].HasField("likeliest")
    form = Form(PREFIX + first[1].stage, chat=chat, scored=scored, ignored=body.ignored)
    if not body.stream:
        async with aclosing(parts):
            async for _ in parts:
                pass
        return JSONResponse(form.whole(answers, usage_of(answers, len(prompts))))

    async def events() -> AsyncIterator[str]:
        async with aclosing(parts):
            answer, piece = first
            scores: list[owner_pb2.TokenScore] = []
            try:
                while True:
                    scores.extend(piece.scores)
                    if piece.text or piece.finish:
                        yield event(form.part(answer, piece.text, scores))
                        scores = []
                    following = await anext(parts, None)
                    if following is None:
                        break
                    answer, piece = following
            except AgentError as error:
                yield event({"error": error_fields(error.text, error.kind, error.code)})
                return
            if body.stream_options and body.stream_options.include_usage:
                yield event(form.usage(usage_of(answers, len(prompts))))
            yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def _parts(
    owner: Owner, body: Generating, prompts: Sequence[owner_pb2.GenerateRequest], answers: list[Answered]
) -> AsyncGenerator[tuple[Answered, owner_pb2.Piece], None]:
    """Yield the pieces of all answers, `n` to each prompt, one after another, and keep them in `answers`."""
    for prompt in prompts:
        for _ in range(body.n or 1):
            answer = Answered(len(answers))
            answers.append(answer)
            if body.seed is not None:
                prompt.seed = body.seed + answer.index
            async with aclosing(owner.generate(prompt)) as pieces:
                async for piece in pieces:
                    answer.text += piece.text
                    answer.scores.extend(piece.scores)
                    answer.last = piece
                    yield answer, piece


async def _respond(pieces: AsyncGenerator[owner_pb2.Piece, None], body: Respond) -> Response:
    """Reply in the form of the responses interface."""
    first = await anext(pieces)  # an error of the agent is still an HTTP status
    model, form, answer = PREFIX + first.stage, ResponseForm(body), Answered(0)

    async def texts() -> AsyncGenerator[str, None]:
        piece: owner_pb2.Piece | None = first
        async with aclosing(pieces):
            while piece is not None:
                answer.text += piece.text
                answer.last = piece
                yield piece.text
                piece = await anext(pieces, None)

    if not body.stream:
        async with aclosing(texts()) as parts:
            async for _ in parts:
                pass
        return JSONResponse(form.whole(answer, model))

    async def events() -> AsyncIterator[str]:
        for opening in form.opening(model):
            yield opening
        async with aclosing(texts()) as parts:
            try:
                async for text in parts:
                    if text:
                        yield form.delta(text)
            except AgentError as error:
                yield form.failed(error)
                return
        for closing in form.closing(answer, model):
            yield closing

    return StreamingResponse(events(), media_type="text/event-stream")
