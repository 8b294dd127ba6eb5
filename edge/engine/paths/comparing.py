"""How far each path is from the plain one on two short rows, in logits."""

import torch

from fedperfit.edge.engine.batching import Question, question_batches
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.paths.labels import label_scores
from fedperfit.edge.engine.paths.path import Path
from fedperfit.edge.engine.paths.plain import plain_scores, target_logits
from fedperfit.edge.engine.paths.probe import Probe
from fedperfit.edge.engine.prefix import recorder
from fedperfit.edge.engine.slab import Stack
from fedperfit.edge.engine.step import StepRow, step_logits
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.layers import changing, decoder_layers
from fedperfit.protocol.system.errors import InputError

_NEW_TOKENS = 3
_CAUSAL = 0.1
"""Greatest part of the largest logit that later tokens may change: rounding in any type."""


def check_plain(base: BaseModel, probe: Probe) -> None:
    """Check what the plain path itself relies on.

    Args:
        base: the frozen model.
        probe: rows and shifts.

    Raises:
        InputError: shifts do not act in the model, a later token changes what an earlier one predicts, or its
            logits are not finite; minus infinity alone says that a token is never written.
    """
    example, stack = probe.examples[0], probe.stack.some([0])
    _check_states(base, example)
    logits = target_logits(base, stack, example)
    if bool(logits.isnan().any() or logits.isposinf().any()) or not logits.isfinite().any():
        raise InputError("its logits are not finite")
    first = target_logits(base, stack, Example(example.prompt, example.target[:1]))
    if not difference(logits[:1], first) <= _CAUSAL:
        raise InputError("what follows a token changes what it predicts: not a causal language model")
    positions, depth = stack.positions, len(decoder_layers(base.model))
    if positions is None or (not positions.last and stack.layers[0] == depth - 1):
        return
    if torch.equal(logits, target_logits(base, Stack([], None, False), example)):
        raise InputError("a shift changes nothing: what its layers return is not what the next ones get")


def _check_states(base: BaseModel, example: Example) -> None:
    """Raise InputError unless the layers pass on one hidden state of the model's size per token."""
    states: list[torch.Tensor] = []
    with changing(base.model, [0], recorder(states)):
        target_logits(base, Stack([], None, False), example)
    tokens, size = len(example.prompt) + len(example.target) - 1, base.card.hidden_size
    if [state.shape for state in states] != [(1, tokens, size)]:
        shape = tuple(states[0].shape) if states else "none"
        raise InputError(f"its layers pass on {shape}, not one state of size {size} for each token")


def difference(logits: torch.Tensor, plain: torch.Tensor) -> float:
    """Greatest difference, as a part of the largest plain logit, or of 1 where that is smaller.

    Args:
        logits: what a path gives.
        plain: what the plain path gives, of the same shape.
    """
    logits, plain = logits.float(), plain.float()
    gaps = torch.where(logits == plain, 0.0, (logits - plain).abs())
    scale = plain[plain.isfinite()].abs().max().clamp(min=1.0)
    return float(gaps.max() / scale)


def training_difference(base: BaseModel, probe: Probe) -> float:
    """Difference between a training step's logits and those of whole rows.

    Args:
        base: the frozen model.
        probe: rows and shifts.
    """
    positions = probe.stack.positions
    assert positions is not None
    rows = [[example] for example in probe.examples]
    prepared = probe.items.prepare(rows, probe.stack.layers[0], positions)
    steps = [StepRow(user, e, prepared.items[e]) for user, e in enumerate(probe.examples)]
    logits = step_logits(base, probe.stack, prepared, steps)
    return max(
        difference(logits[user, -len(e.target) :], target_logits(base, probe.stack.some([user]), e))
        for user, e in enumerate(probe.examples)
    )


@torch.inference_mode()
def label_difference(base: BaseModel, probe: Probe) -> float:
    """Difference between scores of labels side by side and of each after its whole prompt.

    Args:
        base: the frozen model.
        probe: rows, labels and shifts.
    """
    (batch,) = question_batches(base, probe.stack, _questions(probe), 2, probe.items, Path.FAST)
    scores = label_scores(base, probe.stack, batch, probe.labels)
    return max(
        difference(row, plain_scores(base, _own(probe, user), probe.examples[user].prompt, probe.labels))
        for row, user in zip(scores, batch.indices, strict=True)
    )


@torch.inference_mode()
def text_difference(base: BaseModel, probe: Probe, path: Path) -> float:
    """Difference between the logits of generated tokens and those of the whole row.

    Args:
        base: the frozen model.
        probe: prompts and shifts.
        path: way in which the prompts are continued.
    """
    greatest = 0.0
    for batch in question_batches(base, probe.stack, _questions(probe), 2, probe.items, path):
        width = batch.ids.shape[1]
        with batch.shifted(base, probe.stack, batch.mask[:, batch.known :]):
            run = base.model.generate(
                **batch.inputs,
                use_cache=not batch.plain,
                max_new_tokens=_NEW_TOKENS,
                min_new_tokens=_NEW_TOKENS,
                do_sample=False,
                num_beams=1,
                pad_token_id=0,
                output_logits=True,
                return_dict_in_generate=True,
            )
        for row, user in enumerate(batch.indices):
            tokens = tuple(run.sequences[row, width:].tolist())
            plain = target_logits(base, _own(probe, user), Example(probe.examples[user].prompt, tokens))
            greatest = max(greatest, difference(torch.stack([step[row] for step in run.logits]), plain))
    return greatest


def _questions(probe: Probe) -> list[Question]:
    users = range(len(probe.examples) if probe.stack.own is not None else 1)
    return [Question(e.prompt, user % len(users)) for user, e in enumerate(probe.examples)]


def _own(probe: Probe, user: int) -> Stack:
    return probe.stack.some([user]) if probe.stack.own is not None else probe.stack
