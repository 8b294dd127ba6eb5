"""Continues a text piece by piece, with shifts that act in its prompt only."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from fedperfit.edge.engine.batching import Question, question_batches
from fedperfit.edge.engine.generation import Sampling, drawing, ends, generation_config
from fedperfit.edge.engine.paths.check import checked
from fedperfit.edge.engine.slab import Stack
from fedperfit.edge.writing.pieces import Pieces
from fedperfit.edge.writing.scores import Recorder, TokenScore, scored
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.chat_template import written_out
from fedperfit.protocol.model.prompt_tokens import prompt_tokens
from fedperfit.protocol.system.errors import PromptError, PromptTooLong
from fedperfit.protocol.tasks import Prompt

Alive = Callable[[], bool]
"""Tells whether the caller still waits for an answer."""


@dataclass(frozen=True)
class Finished:
    """End of a generated text."""

    reason: str
    """`stop` at a token that ends texts, `length` at the limit."""
    prompt_tokens: int
    """Number of tokens in the prompt."""
    completion_tokens: int
    """Number of tokens generated, the end token included."""
    task: str = ""
    """Id of the task whose question it answers; empty where a text or a conversation went on."""


def free_prompt(base: BaseModel, prompt: Prompt, room: int = 1) -> tuple[int, ...]:
    """Tokenize what is to be continued: a free text, or a conversation.

    Args:
        base: model whose tokenizer and context count.
        prompt: text or conversation; the latter stands on lines where the model has no chat template.
        room: fewest tokens of the context that an answer needs.

    Returns:
        Token ids, at least one.

    Raises:
        PromptError: the prompt is empty, leaves no room for an answer in the context, or is a conversation
            that the chat template refuses.
    """
    if not isinstance(prompt, str):
        chat = base.tokenizer.chat_template
        prompt = written_out(base.tokenizer, prompt) if chat else "\n".join(turn.text for turn in prompt)
    if base.most_characters is not None:  # megabytes take seconds to be made tokens
        fewest = math.ceil(len(prompt) / base.most_characters)
        if fewest > base.context - room:
            raise PromptTooLong(f"the prompt has at least {fewest} tokens; {_reads(base, room)}")
    (row,) = prompt_tokens(base, [prompt])
    return _checked(base, row, room)


def given_tokens(base: BaseModel, tokens: Sequence[int]) -> tuple[int, ...]:
    """Check a prompt that is given as token ids, which is taken as it is; raises PromptError.

    Behind what an encoder reads, the decoder starts.

    Args:
        base: model whose vocabulary and context count.
        tokens: token ids.
    """
    words = base.model.get_input_embeddings().num_embeddings
    for token in tokens:
        if token >= words:
            raise PromptError(f"the prompt has the token {token}; the base model knows {words}")
    return _checked(base, [*tokens, *base.mark] if tokens else tokens)


def _checked(base: BaseModel, row: Sequence[int], room: int = 1) -> tuple[int, ...]:
    if not row:
        raise PromptError("the prompt is empty")
    if len(row) > base.context - room:
        raise PromptTooLong(f"the prompt has {len(row)} tokens; {_reads(base, room)}")
    return tuple(row)


def _reads(base: BaseModel, room: int) -> str:
    return f"the base model reads {base.context - room}"


@dataclass(frozen=True)
class Scoring:
    """Wish for the log-likelihoods of the tokens of a text."""

    likeliest: int
    """Number of likeliest tokens to tell beside each."""
    on_scores: Callable[[Sequence[TokenScore]], None]
    """Called with the scores of tokens before the text that they are part of, or end."""


@torch.inference_mode()
def stream(
    base: BaseModel,
    stack: Stack,
    prompt: tuple[int, ...],
    sampling: Sampling,
    on_text: Callable[[str], None],
    alive: Alive,
    scoring: Scoring | None = None,
) -> Finished:
    """Continue a prompt piece by piece; ends early when the caller is gone.

    Args:
        base: the frozen model.
        stack: shifts that act at the prompt's positions.
        prompt: token ids.
        sampling: how the next token is chosen.
        on_text: called with each piece of text as it is decoded.
        alive: asked before every token whether the caller still waits.
        scoring: told of the tokens' log-likelihoods; None where nobody asks.

    Returns:
        Why the text ended, and the numbers of tokens.
    """
    path = checked(base, stack.layers, stack.positions).text
    (batch,) = question_batches(base, stack, [Question(prompt)], 1, None, path)
    room = base.context - len(prompt)
    most = min(sampling.max_new_tokens or room, room)
    config = generation_config(base, most, sampling, cached=not batch.plain)
    recorder = Recorder()
    with drawing(base, sampling), batch.shifted(base, stack, batch.mask[:, batch.known :]):
        rows = base.model.generate(
            **batch.inputs,
            generation_config=config,
            streamer=_Streamer(base, on_text, scoring, recorder),
            stopping_criteria=StoppingCriteriaList([_Gone(alive)]),
            logits_processor=LogitsProcessorList([recorder] if scoring else []),
        )
    completion = rows[0, len(prompt) :].tolist()
    ended = bool(completion) and completion[-1] in ends(base)
    return Finished("stop" if ended else "length", len(prompt), len(completion))


class _Streamer(BaseStreamer):
    """Tells the text of what is generated, and before each piece the scores of its tokens."""

    def __init__(
        self, base: BaseModel, on_text: Callable[[str], None], scoring: Scoring | None, recorder: Recorder
    ) -> None:
        self._pieces = Pieces(lambda tokens: str(base.tokenizer.decode(tokens, skip_special_tokens=True)))
        self._base, self._on_text, self._scoring, self._recorder = base, on_text, scoring, recorder
        self._scores: list[TokenScore] = []
        self._in_prompt = True

    def put(self, value: torch.Tensor) -> None:
        if self._in_prompt:
            self._in_prompt = False
            return
        token = int(value.flatten()[-1])
        if self._scoring is not None:
            self._scores.append(scored(self._base, self._recorder.logs, token, self._scoring.likeliest))
        piece = self._pieces.add(token)
        if piece:
            self._tell(piece)

    def end(self) -> None:
        self._tell(self._pieces.rest())

    def _tell(self, text: str) -> None:
        if self._scoring is not None and self._scores:
            self._scoring.on_scores(self._scores)
            self._scores = []
        if text:
            self._on_text(text)


class _Gone(StoppingCriteria):
    def __init__(self, alive: Alive) -> None:
        self._alive = alive

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return torch.full((len(input_ids),), not self._alive(), device=input_ids.device)
