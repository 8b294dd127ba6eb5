"""Trains the embedded model on the world's population: `python -m simulation.make_embedded`.

Llama architecture, its byte-level BPE trained on the same texts. The same seed gives the same
files on one machine. Set the allocator as `simulation.environment` does, or it takes twice as long.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from protocol.tasks import Pair
from simulation.world.build import KINDS, population_pairs

SPECIAL = ("<pad>", "<s>", "</s>")
VOCABULARY = 3072
PROMPT_SHARE = 0.15
"""Share of the prompt tokens, drawn at random, that are predicted beside all target tokens."""


def train_tokenizer(seed: int, *, pairs_per_task: int = 4000) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits over the population's prompts and targets."""
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
    for task in KINDS:
        pairs = population_pairs(task, seed)
        for _ in range(pairs_per_task):
            pair, _ = next(pairs)
            yield pair.prompt + pair.target


def build_model(vocabulary: int) -> LlamaForCausalLM:
    """8 layers, d = 192: 4 M parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=8,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def batch_of(pairs: list[Pair], tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """ids (batch, tokens), padded on the right, and a bool mask of the target tokens."""
    prompts = tokenizer([pair.prompt for pair in pairs])["input_ids"]
    targets = tokenizer([pair.target for pair in pairs])["input_ids"]
    rows = [([1, *p, *t, 2], len(p) + 1) for p, t in zip(prompts, targets, strict=True)]
    width = max(len(row) for row, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    target = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, (row, prompt) in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        target[index, prompt : len(row)] = True
    return ids, target


def train(seed: int, steps: int, batch: int, peak: float) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train on `3 * batch` fresh pairs per step, bf16 autocast; prints a line every 25 steps."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(seed)
    model = build_model(len(tokenizer))
    model.train()
    streams = {task: population_pairs(task, seed) for task in KINDS}
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.05)
    started = time.monotonic()
    for step in range(steps):
        warm = min(1.0, (step + 1) / 100)
        rate = peak * warm * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = {}
        for task, stream in streams.items():
            ids, target = batch_of([next(stream)[0] for _ in range(batch)], tokenizer)
            prompt = (ids != 0) & ~target & (torch.rand(ids.shape) < PROMPT_SHARE)
            predicted = (target | prompt)[:, 1:]
            with torch.autocast("cpu", torch.bfloat16):
                hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
                logits = model.lm_head(hidden[:, :-1][predicted])
            loss = F.cross_entropy(logits.float(), ids[:, 1:][predicted], reduction="none")
            of_target = loss[target[:, 1:][predicted]]
            losses[task] = of_target.mean().item()
            ((of_target.sum() + 0.2 * loss.sum()) / len(of_target) / len(streams)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 == 0 or step == steps - 1:
            shown = " ".join(f"{task} {value:.3f}" for task, value in losses.items())
            print(f"step {step}/{steps} {time.monotonic() - started:.0f} s  {shown}", flush=True)
    return model.eval(), tokenizer


def main(
    to: Path = typer.Option(Path("protocol/embedded"), help="Folder to write the model to."),
    seed: int = 1,
    steps: int = typer.Option(2200, help="Optimizer steps."),
    batch: int = typer.Option(32, help="Pairs of each task per step."),
    peak: float = typer.Option(3e-3, help="Peak learning rate."),
) -> None:
    """Train the embedded model and write it in bf16."""
    model, tokenizer = train(seed, steps, batch, peak)
    model.bfloat16().save_pretrained(to)
    tokenizer.save_pretrained(to)


if __name__ == "__main__":
    typer.run(main)
