"""Trains the embedded model on the world's population: `python -m fedperfit.simulation.world.make_embedded`.

Llama architecture, its byte-level BPE trained on the same texts. The same seed gives the same
files on one machine. Set the allocator as `simulation.run.environment` does, or it takes twice as long.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fedperfit.protocol.tasks import TASKS, Pair, asked_text
from fedperfit.simulation.world.build import WORLD_TASKS, population_pairs

SPECIAL = ("<pad>", "<s>", "</s>")
"""Padding, start and end token, in the order of their ids."""
VOCABULARY = 3072
"""Tokens of the vocabulary, special ones and bytes included."""
_LAYERS = 8
PROMPT_SHARE = 0.15
"""Share of the prompt tokens, drawn at random, that are predicted beside all target tokens."""
PROMPT_WEIGHT = 0.2
"""Weight of the mean loss over all predicted tokens beside that over target tokens."""


def train_tokenizer(seed: int, *, pairs_per_task: int = 4000) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE, with digits apart, on the population's prompts and targets.

    Args:
        seed: Seed of the population's users.
        pairs_per_task: Pairs of each task that are read.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed, pairs_per_task), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[0], bos_token=SPECIAL[1], eos_token=SPECIAL[2]
    )


def _texts(seed: int, pairs_per_task: int) -> Iterator[str]:
    for task in WORLD_TASKS:
        pairs = population_pairs(TASKS[task], seed)
        for _ in range(pairs_per_task):
            pair, _ = next(pairs)
            yield asked_text(pair.prompt) + pair.target


def build_model(vocabulary: int) -> LlamaForCausalLM:
    """Return an untrained Llama of 4 M parameters: 8 layers of d = 192."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=_LAYERS,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


@dataclass(frozen=True)
class _Batch:
    """Rows of one task without their common first tokens, padded on the right."""

    shared: torch.Tensor
    """The instruction, which is run once: (1, prefix)."""
    ids: torch.Tensor
    """Token ids: (batch, tokens)."""
    target: torch.Tensor
    """True at target tokens: (batch, tokens) bool."""


def _collate(pairs: list[Pair], tokenizer: PreTrainedTokenizerFast) -> _Batch:
    prompts = tokenizer([asked_text(pair.prompt) for pair in pairs])["input_ids"]
    targets = tokenizer([pair.target for pair in pairs])["input_ids"]
    rows = [([1, *p, *t, 2], len(p) + 1) for p, t in zip(prompts, targets, strict=True)]
    shared = _common_prefix([row for row, _ in rows]) - 1
    width = max(len(row) for row, _ in rows) - shared
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    target = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, (row, prompt) in enumerate(rows):
        ids[index, : len(row) - shared] = torch.tensor(row[shared:])
        target[index, prompt - shared : len(row) - shared] = True
    return _Batch(torch.tensor([rows[0][0][:shared]]), ids, target)


def _common_prefix(rows: list[list[int]]) -> int:
    for index, tokens in enumerate(zip(*rows, strict=False)):
        if len(set(tokens)) > 1:
            return index
    return min(len(row) for row in rows)


def _loss(model: LlamaForCausalLM, batch: _Batch) -> tuple[torch.Tensor, float]:
    """Return the training loss, and the mean loss of the target tokens in nats."""
    prompt = (batch.ids != 0) & ~batch.target & (torch.rand(batch.ids.shape) < PROMPT_SHARE)
    predicted = (batch.target | prompt)[:, 1:]
    with torch.autocast("cpu", torch.bfloat16):
        cache = model.model(input_ids=batch.shared, use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(batch.ids))
        hidden = model.model(input_ids=batch.ids, past_key_values=cache).last_hidden_state
        logits = model.lm_head(hidden[:, :-1][predicted])
    loss = F.cross_entropy(logits.float(), batch.ids[:, 1:][predicted], reduction="none")
    target_loss = loss[batch.target[:, 1:][predicted]]
    return (target_loss.sum() + PROMPT_WEIGHT * loss.sum()) / len(target_loss), target_loss.mean().item()


def _optimizers(model: LlamaForCausalLM, peak: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    known = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in known]
    return [
        torch.optim.Muon(matrices, lr=peak, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=peak, betas=(0.9, 0.98), weight_decay=0.05),
    ]


def train(seed: int, steps: int, batch: int, peak: float) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train tokenizer and model on `3 * batch` fresh pairs per step, under bf16 autocast.

    Every 25 steps a line is printed.

    Args:
        seed: Seed of the weights and of the population's users.
        steps: Optimizer steps.
        batch: Pairs of each task per step.
        peak: Peak learning rate.
    """
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(seed)
    model = build_model(len(tokenizer))
    model.train()
    streams = {task: population_pairs(TASKS[task], seed) for task in WORLD_TASKS}
    optimizers = _optimizers(model, peak)
    started = time.monotonic()
    for step in range(steps):
        warm = min(1.0, (step + 1) / 100)
        rate = peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        shown = []
        for task, stream in streams.items():
            rows = _collate([next(stream)[0] for _ in range(batch)], tokenizer)
            loss, target_loss = _loss(model, rows)
            (loss / len(streams)).backward()
            shown.append(f"{task} {target_loss:.3f}")
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        if step % 25 == 0 or step == steps - 1:
            print(f"step {step}/{steps} {time.monotonic() - started:.0f} s  {'  '.join(shown)}", flush=True)
    return model.eval(), tokenizer


def main(
    to: Path = typer.Option(Path("protocol/embedded"), help="Folder to write the model to."),
    seed: int = 1,
    steps: int = typer.Option(1500, help="Optimizer steps."),
    batch: int = typer.Option(32, help="Pairs of each task per step."),
    peak: float = typer.Option(3e-3, help="Peak learning rate."),
) -> None:
    """Train the embedded model and write it in bf16."""
    model, tokenizer = train(seed, steps, batch, peak)
    model.bfloat16().save_pretrained(to)
    tokenizer.save_pretrained(to)


if __name__ == "__main__":
    typer.run(main)
