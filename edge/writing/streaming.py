"""Continues a text piece by piece, with shifts that act in its prompt only."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList, TextStreamer

from fedperfit.edge.engine.batching import Question, question_batches
from fedperfit.edge.engine.generation import Sampling, drawing, ends, generation_config
from fedperfit.edge.engine.paths.check import checked
from fedperfit.edge.engine.slab import Stack
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.prompt_tokens import prompt_tokens
from fedperfit.protocol.system.errors import InputError
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

    def of_task(self, task: str) -> "Finished":
        """Return this end as that of an answer to a question of a task, by its id."""
        return replace(self, task=task)


def free_prompt(base: BaseModel, prompt: Prompt) -> tuple[int, ...]:
    """Tokenize what is to be continued: a free text, or a conversation.

    Args:
        base: model whose tokenizer and context count.
        prompt: text or conversation; the latter stands on lines where the model has no chat template.

    Returns:
        Token ids, at least one.

    Raises:
        InputError: the prompt is empty, or leaves no room for an answer in the context.
    """
    if not isinstance(prompt, str) and not base.tokenizer.chat_template:
        prompt = "\n".join(turn.text for turn in prompt)
    (row,) = prompt_tokens(base, [prompt])
    if not row:
        raise InputError("the prompt is empty")
    if len(row) >= base.context:
        raise InputError(f"the prompt has {len(row)} tokens; the base model reads {base.context - 1}")
    return tuple(row)


@torch.inference_mode()
def stream(
    base: BaseModel,
    stack: Stack,
    prompt: tuple[int, ...],
    sampling: Sampling,
    on_text: Callable[[str], None],
    alive: Alive,
) -> Finished:
    """Continue a prompt piece by piece; ends early when the caller is gone.

    Args:
        base: the frozen model.
        stack: shifts that act at the prompt's positions.
        prompt: token ids.
        sampling: how the next token is chosen.
        on_text: called with each piece of text as it is decoded.
        alive: asked before every token whether the caller still waits.

    Returns:
        Why the text ended, and the numbers of tokens.
    """
    path = checked(base, stack.layers, stack.positions).text
    (batch,) = question_batches(base, stack, [Question(prompt)], 1, None, path)
    room = base.context - len(prompt)
    config = generation_config(base, min(sampling.max_new_tokens or room, room), sampling)
    with drawing(base, sampling), batch.shifted(base, stack, batch.mask[:, batch.known :]):
        rows = base.model.generate(
            **batch.inputs,
            generation_config=config,
            streamer=_Pieces(base.tokenizer, on_text),
            stopping_criteria=StoppingCriteriaList([_Gone(alive)]),
        )
    completion = rows[0, len(prompt) :].tolist()
    ended = bool(completion) and completion[-1] in ends(base)
    return Finished("stop" if ended else "length", len(prompt), len(completion))


class _Pieces(TextStreamer):
    def __init__(self, tokenizer: PreTrainedTokenizerBase, on_text: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._on_text(text)


class _Gone(StoppingCriteria):
    def __init__(self, alive: Alive) -> None:
        self._alive = alive

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return torch.full((len(input_ids),), not self._alive(), device=input_ids.device)
