"""Replies in OpenAI's form: whole or in events, with the log-likelihoods of tokens."""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fedperfit.edge.web.places import PART, Places
from fedperfit.protocol.schema import owner_pb2

Scores = Sequence[owner_pb2.TokenScore]
"""Tokens with their log-likelihoods."""


@dataclass
class Answered:
    """One answer as it comes."""

    index: int
    """Number of the answer among those of its request."""
    text: str = ""
    scores: list[owner_pb2.TokenScore] = field(default_factory=list)
    last: owner_pb2.Piece = field(default_factory=owner_pb2.Piece)
    """Piece that ended it."""
    told: int = 0
    """Number of its tokens that were told with their places in the text."""
    places: Places = field(default_factory=Places)


class Form:
    """Format of a reply: a completion or a chat completion."""

    def __init__(self, model: str, *, chat: bool, scored: bool, ignored: Sequence[str]) -> None:
        """Begin a reply.

        Args:
            model: name of the model that answers.
            chat: whether it is a chat completion.
            scored: whether log-likelihoods are wanted.
            ignored: names of the request's fields that have no effect.
        """
        self._chat, self._scored, self._ignored = chat, scored, ignored
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, answers: Sequence[Answered], usage: dict[str, int]) -> dict[str, Any]:
        """Reply with whole answers.

        Args:
            answers: all answers of the request.
            usage: numbers of tokens.
        """
        choices = []
        for answer in answers:
            message = {"role": "assistant", "content": answer.text, "refusal": None}
            content = {"message": message} if self._chat else {"text": answer.text}
            choices.append(self._choice(answer, content, answer.scores))
        return {**self._named("", answers[0].last), "choices": choices, "usage": usage}

    def part(self, answer: Answered, text: str, scores: Scores) -> dict[str, Any]:
        """Event with one piece of an answer.

        Args:
            answer: the answer, with its end where this is the last event.
            text: text of the piece.
            scores: tokens of the piece.
        """
        first = len(answer.text) == len(text)
        begun = {"role": "assistant"} if first else {}  # once: OpenAI's client joins the texts of all events
        delta = begun if answer.last.finish else {**begun, "content": text}
        content: dict[str, Any] = {"delta": delta} if self._chat else {"text": text}
        choice = self._choice(answer, content, scores)
        return {**self._named(".chunk", answer.last), "choices": [choice]}

    def usage(self, usage: dict[str, int]) -> dict[str, Any]:
        """Event with the numbers of tokens, after the last piece."""
        return {**self._named(".chunk", owner_pb2.Piece()), "choices": [], "usage": usage}

    def _choice(self, answer: Answered, content: dict[str, Any], scores: Scores) -> dict[str, Any]:
        told, left = None, scores if self._chat else answer.scores[answer.told :]
        if self._scored and (left or not answer.last.finish):
            told = _chat_scores(left) if self._chat else _completion_scores(answer, left)
        finish = answer.last.finish or None
        return {"index": answer.index, **content, "finish_reason": finish, "logprobs": told}

    def _named(self, suffix: str, last: owner_pb2.Piece) -> dict[str, Any]:
        kind = f"chat.completion{suffix}" if self._chat else "text_completion"
        told = metadata(last, self._ignored)
        return {**self._head, "object": kind, **({"metadata": told} if told else {})}


def metadata(last: owner_pb2.Piece, ignored: Sequence[str]) -> dict[str, str]:
    """Tell what is particular about an answer: the task it was asked in the form of, fields without effect.

    Args:
        last: piece that ended it.
        ignored: names of the request's fields that have no effect.
    """
    told = {"task": last.task, "ignored": ", ".join(ignored)}
    return {name: value for name, value in told.items() if value}


def usage_of(answers: Sequence[Answered], prompts: int) -> dict[str, int]:
    """Add up the numbers of tokens.

    Args:
        answers: all answers of a request, as many for each prompt.
        prompts: number of prompts.
    """
    first = answers[:: len(answers) // prompts]
    prompt = sum(answer.last.prompt_tokens for answer in first)
    completion = sum(answer.last.completion_tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def event(value: dict[str, Any]) -> str:
    """Write one server-sent event."""
    return f"data: {json.dumps(value)}\n\n"


def _chat_scores(scores: Scores) -> dict[str, Any]:
    def token(score: owner_pb2.TokenScore) -> dict[str, Any]:
        told = None if PART in score.text else list(score.text.encode())  # which part, the text does not say
        return {"token": score.text, "logprob": score.score, "bytes": told}

    content = [{**token(score), "top_logprobs": list(map(token, score.likeliest))} for score in scores]
    return {"content": content, "refusal": None}


def _completion_scores(answer: Answered, left: Scores) -> dict[str, Any]:
    """Write the scores of those tokens that are left whose places in the text can be told."""
    offsets = answer.places.of([score.text for score in left], answer.text, ended=bool(answer.last.finish))
    scores = left[: len(offsets)]
    answer.told += len(scores)
    first = [not score.HasField("score") for score in scores]
    return {
        "tokens": [score.text for score in scores],
        "token_logprobs": [
            None if nothing else score.score for nothing, score in zip(first, scores, strict=True)
        ],
        "top_logprobs": [
            None if nothing else {other.text: other.score for other in reversed(score.likeliest)}
            for nothing, score in zip(first, scores, strict=True)
        ],
        "text_offset": offsets,
    }
