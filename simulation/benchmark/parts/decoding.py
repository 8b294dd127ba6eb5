"""Cost of a personal shift when text is generated: something in the prefill, nothing per token."""

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from rich.table import Table

from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.injection import injected
from fedperfit.protocol.shift.shift import Shift
from fedperfit.simulation.benchmark.model import ModelSpec, make_base
from fedperfit.simulation.benchmark.record import Record
from fedperfit.simulation.benchmark.workload import Workload, make_examples

NEW_TOKENS = 64
"""Tokens generated after the first."""
_REPEATS = 9


def run(model: ModelSpec, task: str, threads: int, record: Record) -> list[dict[str, Any]]:
    """Measure generation without shifts and under a collective and a personal one.

    Args:
        model: The base model.
        task: LaMP task whose prompt length is taken.
        threads: CPU threads.
        record: Measurements on file.
    """

    def take() -> dict[str, Any]:
        torch.set_num_threads(threads)
        base = make_base(model)
        workload = Workload.of_task(task, users=1, items=1)
        prompt = torch.tensor([next(make_examples(base, workload))[0].prompt], device=base.device)
        shape = workload.settings.shape(base.card)
        personal = replace(shape, rank=workload.settings.personal().rank)
        shifts = [Shift.identity(shape, seed=0), Shift.identity(personal, seed=1)]
        stages = {"base model alone": [], "personal shift": [shift.to(base.device) for shift in shifts]}
        return {"rows": _measure(base, prompt, stages)}

    figures = record.measure(f"decoding/{task}", take)
    return [figures] if "error" in figures else list(figures["rows"])


@torch.inference_mode()
def _measure(base: BaseModel, prompt: torch.Tensor, stages: dict[str, list[Shift]]) -> list[dict[str, Any]]:
    """Return medians; stages take turns, so that a slow phase of the machine affects all."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in stages}
    for repeat in range(_REPEATS + 1):
        for name, shifts in stages.items():
            first = _generate(base, prompt, shifts, 1)
            pair = (first, (_generate(base, prompt, shifts, 1 + NEW_TOKENS) - first) / NEW_TOKENS)
            if repeat:  # the first is a warm-up
                times[name].append(pair)
    rows = []
    for name, pairs in times.items():
        prefill, token = (1e3 * median(column) for column in zip(*pairs, strict=True))
        rows.append({"stage": name, "prefill_ms": prefill, "token_ms": token})
    return rows


def _generate(base: BaseModel, prompt: torch.Tensor, shifts: list[Shift], tokens: int) -> float:
    """Return the seconds that exactly `tokens` new tokens take."""
    inside = torch.ones_like(prompt, dtype=torch.bool)
    mask = shifts[0].shape.positions.mask(inside) if shifts else inside
    started = time.perf_counter()
    with injected(base.model, shifts, mask, prefill_only=True):
        base.model.generate(
            input_ids=prompt,
            attention_mask=inside.long(),
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
    if base.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Tabulate milliseconds, and how much the shift adds."""
    printed = Table(title=f"decoding {NEW_TOKENS} tokens")
    for name in ("stage", "prefill ms", "ms per token", "of the base model"):
        printed.add_column(name, justify="left" if name == "stage" else "right")
    for row in rows:
        if "error" in row:
            printed.add_row(row["error"])
            continue
        ratio = row["token_ms"] / rows[0]["token_ms"]
        printed.add_row(row["stage"], f"{row['prefill_ms']:.1f}", f"{row['token_ms']:.2f}", f"{ratio:.2f}")
    return printed
