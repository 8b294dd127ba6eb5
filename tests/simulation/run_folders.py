"""A run folder with random results, as a study leaves it."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from fedperfit.edge.engine.scoring import score
from fedperfit.protocol.messages.ledger import Entry, Ledger
from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.run.settings import RunSettings

CARD = BaseModelCard(
    "f" * 64, hidden_size=192, layers=8, parameters=4_000_000, dtype="float32", lora_qv=49_152
)
TITLES = ("the mayor opened the bridge", "why did the mayor open it?", "a bridge in may")


def write_run(
    folder: Path,
    task: str,
    *,
    users: int = 6,
    answers: Mapping[str, str] | None = None,
    name: str = "targets-{}",
    leaked: Sequence[int] = (0, 0, 0),
) -> Path:
    """answers: stage to the bound whose answers it gives; other stages answer at random. leaked: bytes of
    personal shifts that were found in the replies of each of so many clients."""
    rng = random.Random(0)
    lamp = TASKS[task]
    choices = lamp.labels or TITLES
    clients = [name.format(number) for number in range(users)]
    bounds = {}
    for client in clients:
        golds = [rng.choice(choices) for _ in range(10)]
        bounds[client] = [
            {
                "gold": gold,
                "bayes": gold if rng.random() < 0.9 else choices[0],
                "unknown": choices[number % 3],
            }
            for number, gold in enumerate(golds)
        ]

    def phase(bound: str | None) -> dict[str, object]:
        result = {}
        for client in clients:
            golds = [one["gold"] for one in bounds[client]]
            given = [one[bound] if bound else rng.choice(choices) for one in bounds[client]]
            result[client] = {"items": 10, "metrics": score(lamp, given, golds)}
        return result

    settings = RunSettings.read("quickstart", {"task": task, "bootstrap-samples": 200})
    write_json(folder / "settings.json", settings.to_flat())
    write_json(folder / "card.json", asdict(CARD))
    write_json(folder / "bounds.json", bounds)
    for number, personal in enumerate(leaked):
        write_json(
            folder / "clients" / str(number) / "scan.json",
            {"replies": 2, "bytes": 500, "personal": personal},
        )
    for stage in ("base", "collective", "personal"):
        write_json(folder / "results" / f"evaluate-{stage}.json", phase((answers or {}).get(stage)))
    for other in ("history-0", "history-4", "collective-10", "collective-10-personal"):
        write_json(folder / "results" / f"{other}.json", phase(None))
    write_json(
        folder / "results" / "history-4-fit.json",
        {c: {"items": 4, "metrics": {"loss": 1.0}} for c in clients},
    )
    rounds = [
        {
            "round": number,
            "asked": ["others-0", "others-1"],
            "admitted": ["others-0"],
            "dropped": {"others-1": "W contains NaN"},
            "skipped": False,
            "items": 8,
            "loss": 1.0 / number,
            "bytes_down": 10,
            "bytes_up": 10,
        }
        for number in (1, 2)
    ]
    write_json(folder / "rounds.json", rounds)
    ledger = Ledger(folder / "ledger" / "train.jsonl")
    for number in (1, 2):
        for client in ("others-0", "others-1"):
            for way in ("down", "up"):
                ledger.add([Entry("train", number, client, way, 24_832, 24_832 + rng.randrange(200, 400))])
    Ledger(folder / "ledger" / "evaluate-base.jsonl").add(
        [Entry("evaluate-base", 0, clients[0], "up", 0, 320)]
    )
    return folder
