"""Bytes that a run sent, from its ledger, beside those that other methods would have to send."""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from fedperfit.protocol.messages.ledger import Direction, Entry, Ledger
from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.shift.basis import coordinate_count
from fedperfit.simulation.client_app import CLIENTS
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.sent_scan import total

BYTES = {"float32": 4, "bfloat16": 2}
"""Bytes per number of other methods, by the precision of transport; they are in fp32 beside finer ones."""


def communication(folder: Path, settings: RunSettings) -> dict[str, Any]:
    """Sum bytes per phase, round and client in both directions.

    Args:
        folder: Folder of the run.
        settings: Settings of the run, with layers and ranks where the run chose them.

    Returns:
        Sums as JSON values, empty while nothing was sent or chosen yet. `alternatives` are bytes per client,
        round and direction at the same precision; `payload-down` and `payload-up` are the median payload of a
        training message each way; `personal-parameters` are the numbers of a person, at most, and under a
        prior over people `prior-parameters` those of people with at most `prior-items` items;
        `personal-bytes-sent` is what the replies were found to hold of personal shifts, and `scanned` how
        many were searched.

    Raises:
        InputError: Naming a file that is broken.
    """
    by_phase = {path.stem: Ledger(path).entries() for path in sorted((folder / "ledger").glob("*.jsonl"))}
    if not any(by_phase.values()) or not (folder / "card.json").exists() or settings.open:
        return {}
    card = read_form(folder / "card.json", BaseModelCard)
    training = by_phase.get("train", [])
    width = BYTES.get(settings.transport_dtype, BYTES["float32"])
    scanned = total(path for path in (folder / CLIENTS).glob("*") if path.is_dir())
    return {
        "phases": {phase: _totals(entries) for phase, entries in by_phase.items() if entries},
        "rounds": [
            {"round": number, **_totals([entry for entry in training if entry.round == number])}
            for number in sorted({entry.round for entry in training})
        ],
        "clients": _per_client(training),
        "payload-down": _median_payload(training, "down"),
        "payload-up": _median_payload(training, "up"),
        "alternatives": {
            "LoRA r=8 on q, v": card.lora_qv * width,
            "full model": card.parameters * width,
        },
        "personal-parameters": _personal_parameters(settings, card),
        **_under_prior(settings, card),
        "personal-bytes-sent": scanned.personal,
        "scanned": scanned._asdict(),
    }


def _median_payload(entries: list[Entry], direction: Direction) -> float:
    """Return the median payload of the messages one way that have any, in bytes; 0 where there are none."""
    payloads = [entry.payload for entry in entries if entry.payload and entry.direction == direction]
    return median(payloads) if payloads else 0


def _personal_parameters(job: RunSettings, card: BaseModelCard) -> int:
    """Count the numbers of a person, at most: in a basis without a prior no shift is fitted freely."""
    shape = job.shape(card)
    if job.personal_basis != "none" and not job.people_prior:
        return coordinate_count(shape, job.personal_columns)
    return replace(shape, rank=job.personal().rank).parameters


def _under_prior(job: RunSettings, card: BaseModelCard) -> dict[str, int]:
    """Count the numbers of a person under a prior, and with how many items all are at most."""
    if not job.people_prior:
        return {}
    count = coordinate_count(job.shape(card), job.personal_columns)
    return {"prior-parameters": min(count, job.personal_numbers or count), "prior-items": job.prior_items}


def _totals(entries: list[Entry]) -> dict[str, dict[str, Any]]:
    sums: dict[str, dict[str, Any]] = {}
    for direction in ("down", "up"):
        some = [entry for entry in entries if entry.direction == direction]
        tensors: Counter[str] = Counter()
        for entry in some:
            tensors.update(entry.tensors)
        sums[direction] = {
            "messages": len(some),
            "payload": sum(entry.payload for entry in some),
            "message": sum(entry.message for entry in some),
            "tensors": dict(sorted(tensors.items())),
        }
    return sums


def _per_client(entries: list[Entry]) -> dict[str, dict[str, float]]:
    """Return the smallest, median and largest total of whole messages over clients, in bytes."""
    totals: dict[str, dict[str, int]] = {"down": defaultdict(int), "up": defaultdict(int)}
    for entry in entries:
        totals[entry.direction][entry.client] += entry.message
    return {
        direction: {"min": min(sums.values()), "median": median(sums.values()), "max": max(sums.values())}
        for direction, sums in totals.items()
        if sums
    }
