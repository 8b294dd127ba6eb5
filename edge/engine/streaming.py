"""Continues a text piece by piece, with shifts that act in its prompt only."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList, TextStreamer

from fedperfit.edge.engine.answering import MAX_NEW_TOKENS
from fedperfit.edge.engine.batching import Question, question_batches
from fedperfit.edge.engine.slab import Stack
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.prompt_tokens import prompt_tokens
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Prompt

Alive = Callable[[], bool]
"""Tells whether the caller still waits for an answer."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Rule by which the next token is chosen."""

    temperature: float = 0.0
    """Divisor of the logits, 0 to 10; 0 takes the likeliest token."""
    top_p: float = 0.0
    """Probability that the sampled tokens make up together, 0 to 1; 0 samples from all tokens."""
    seed: int = 0
    """Seed of the random numbers; of no effect at temperature 0."""
    max_new_tokens: int = 0
    """Most tokens to generate; 0 for as many as an answer of a task may have."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 10:
            raise InputError(f"temperature={self.temperature}: must be in 0..10")
        if not 0 <= self.top_p <= 1:
            raise InputError(f"top_p={self.top_p}: must be in 0..1")


@dataclass(frozen=True)
class Finished:
    """End of a generated text."""

    reason: str
    """`stop` at the end token, `length` at the limit."""
    prompt_tokens: int
    """Number of tokens in the prompt."""
    completion_tokens: int
    """Number of tokens generated, the end token included."""


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
    (batch,) = question_batches(base, stack, [Question(prompt)], 1, None)
    most = min(sampling.max_new_tokens or MAX_NEW_TOKENS, base.context - len(prompt))
    choice: dict[str, object] = {"do_sample": False, "num_beams": 1}
    if sampling.temperature > 0:
        torch.manual_seed(sampling.seed)
        choice = {
            **{"do_sample": True, "num_beams": 1, "top_k": 0},
            **{"temperature": sampling.temperature, "top_p": sampling.top_p or 1.0},
        }
    with batch.shifted(base, stack, batch.mask[:, batch.known :]):
        rows = base.model.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask.long(),
            past_key_values=batch.cache,
            max_new_tokens=most,
            pad_token_id=base.tokenizer.eos_token_id,
            streamer=_Pieces(base.tokenizer, on_text),
            stopping_criteria=StoppingCriteriaList([_Gone(alive)]),
            **choice,
        )
    completion = rows[0, len(prompt) :].tolist()
    ended = bool(completion) and completion[-1] == base.tokenizer.eos_token_id
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
