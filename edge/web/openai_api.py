"""The part of OpenAI's interface that a text generator has: models, completions, chat completions."""

import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from fedperfit.edge.web.owner import Owner
from fedperfit.protocol.messages.settings import Stage
from fedperfit.protocol.schema import owner_pb2

SUITING = "fedperfit"
"""Name of the model that answers at the stage that suits the person best; answers name the stage."""
PREFIX = "fedperfit-"
"""First part of a model's name, before its stage."""


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _Request(BaseModel):
    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Divisor of the logits; greedy where it is not given."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None
    n: int = Field(default=1, ge=1, le=1)


class _Completion(_Request):
    prompt: str


class _Turn(BaseModel):
    role: str
    content: str


class _Chat(_Request):
    messages: list[_Turn] = Field(min_length=1)


def failure(status: int, message: str, kind: str = "invalid_request_error") -> JSONResponse:
    """Write an error in OpenAI's form.

    Args:
        status: HTTP status.
        message: text for the caller.
        kind: type of the error, one of OpenAI's names or `agent_error`.
    """
    return JSONResponse({"error": {"message": message, "type": kind, "code": None}}, status)


def router(owner: Owner, *, task_form: bool) -> APIRouter:
    """Make the routes below /v1, which pass requests to the owner's agent.

    Args:
        owner: the owner's agent.
        task_form: whether a conversation that closes with a question of the task is asked in its form.
    """
    routes = APIRouter(prefix="/v1")

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        names = [SUITING, *(PREFIX + stage for stage in _stages(await owner.state()))]
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "you"} for name in names]
        return {"object": "list", "data": data}

    @routes.post("/completions")
    async def completions(body: _Completion, request: Request) -> Response:
        asked = _asked(body)
        asked.prompt = body.prompt
        return await _answer(owner, body, asked, request, chat=False)

    @routes.post("/chat/completions")
    async def chat_completions(body: _Chat, request: Request) -> Response:
        asked = _asked(body)
        asked.task_form = task_form
        asked.turns.extend(owner_pb2.Turn(role=turn.role, text=turn.content) for turn in body.messages)
        return await _answer(owner, body, asked, request, chat=True)

    return routes


def _stages(state: dict[str, Any]) -> list[str]:
    return [
        *[Stage.BASE],
        *([Stage.COLLECTIVE] if "release" in state else []),
        *([Stage.DIRECTIONS] if state.get("release", {}).get("edited") else []),
        *([Stage.PERSONAL] if "personal" in state and not _stale(state) else []),
    ]


def _stale(state: dict[str, Any]) -> bool:
    """Whether the personal shift was made for a release before the one in force."""
    return bool(state["personal"]["release"] != state.get("release", {}).get("version"))


def _asked(body: _Request) -> owner_pb2.GenerateRequest:
    return owner_pb2.GenerateRequest(
        stage="" if body.model == SUITING else body.model.removeprefix(PREFIX),
        max_new_tokens=body.max_completion_tokens or body.max_tokens or 0,
        temperature=body.temperature or 0.0,
        top_p=body.top_p or 0.0,
        seed=body.seed,
    )


async def _answer(
    owner: Owner, body: _Request, asked: owner_pb2.GenerateRequest, request: Request, *, chat: bool
) -> Response:
    if body.model not in (SUITING, *(PREFIX + stage for stage in Stage)):
        return failure(404, f"the model {body.model!r} does not exist")
    pieces = _until_stop(
        owner.generate(asked), [body.stop] if isinstance(body.stop, str) else body.stop or []
    )
    first = await anext(pieces)  # an error of the agent is still an HTTP status
    form = _Form(PREFIX + first.stage, chat)
    if not body.stream:
        texts, last = [], first
        async with aclosing(pieces):
            if not last.finish:
                texts.append(last.text)
                async for last in pieces:
                    texts.append(last.text)
                    if await request.is_disconnected():
                        return Response(status_code=499)
        return JSONResponse(form.whole("".join(texts), last))

    async def events() -> AsyncIterator[str]:
        async with aclosing(pieces):
            yield _event(form.part(first))
            last = first
            if not first.finish:
                async for last in pieces:
                    yield _event(form.part(last))
            if body.stream_options and body.stream_options.include_usage:
                yield _event(form.usage(last))
            yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


class _Form:
    """Format of a reply: a completion or a chat completion."""

    def __init__(self, model: str, chat: bool) -> None:
        self._chat = chat
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, last: owner_pb2.Piece) -> dict[str, Any]:
        """Reply with the whole text; last: the piece that ended it."""
        content = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        choice = {"index": 0, **content, "finish_reason": last.finish, "logprobs": None}
        whole = {**self._named(""), "choices": [choice], "usage": _usage(last)}
        return {**whole, "metadata": {"task": last.task}} if last.task else whole

    def part(self, piece: owner_pb2.Piece) -> dict[str, Any]:
        """Event with one piece of the text."""
        delta = {"role": "assistant", "content": piece.text} if not piece.finish else {}
        content: dict[str, Any] = {"delta": delta} if self._chat else {"text": piece.text}
        choice = {"index": 0, **content, "finish_reason": piece.finish or None, "logprobs": None}
        part = {**self._named(".chunk"), "choices": [choice]}
        return {**part, "metadata": {"task": piece.task}} if piece.task else part

    def usage(self, last: owner_pb2.Piece) -> dict[str, Any]:
        """Event with the numbers of tokens, after the last piece."""
        return {**self._named(".chunk"), "choices": [], "usage": _usage(last)}

    def _named(self, suffix: str) -> dict[str, Any]:
        kind = f"chat.completion{suffix}" if self._chat else "text_completion"
        return {**self._head, "object": kind}


def _usage(last: owner_pb2.Piece) -> dict[str, int] | None:
    """Numbers of tokens; None where a stop text ended the call before the agent had counted."""
    if not last.prompt_tokens:
        return None
    prompt, completion = last.prompt_tokens, last.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _until_stop(
    pieces: AsyncGenerator[owner_pb2.Piece, None], stops: list[str]
) -> AsyncGenerator[owner_pb2.Piece, None]:
    """Yield the pieces up to the first of `stops`, also where it spans pieces; the last has the reason."""
    stops = [stop for stop in stops if stop]
    longest = max(map(len, stops), default=1)
    held = ""
    async with aclosing(pieces):
        async for piece in pieces:
            if piece.finish:
                if held:
                    yield owner_pb2.Piece(text=held, stage=piece.stage)
                yield piece
                return
            held += piece.text
            ends = [held.index(stop) for stop in stops if stop in held]
            if ends:
                if min(ends):
                    yield owner_pb2.Piece(text=held[: min(ends)], stage=piece.stage)
                yield owner_pb2.Piece(finish="stop", stage=piece.stage)
                return
            ready = len(held) - longest + 1
            if ready > 0:
                yield owner_pb2.Piece(text=held[:ready], stage=piece.stage)
                held = held[ready:]
