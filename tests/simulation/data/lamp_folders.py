"""Small LaMP folders in each layout, as values to write, change and break."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.data.lamp import LampData, open_lamp

Files = dict[str, Any]
"""File name to JSON value."""
RATING = TASKS["LaMP_3"]
HISTORY = "user_top_100_history.json"
LABELS = "user_top_100_history_label.json"


def item(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"i{number}", "text": f"review {number} é🙂", "score": str(number % 5 + 1)} | changes


def query(name: str) -> dict[str, Any]:
    return {"id": name, "input": f"What is the score? review: of {name}"}


def golds(names: list[str], task: str = "LaMP_3") -> dict[str, Any]:
    return {"task": task, "golds": [{"id": name, "output": f"{n % 5 + 1} "} for n, name in enumerate(names)]}


def oppu() -> Files:
    others = [
        {
            "user_id": f"o{n}",
            "profile": [item(n), item(n + 1)],
            "query": [query(f"oq{n}") | {"gold": " 4"}],
        }
        for n in range(3)
    ]
    targets = [
        {
            "user_id": n,
            "profile": [item(k) for k in range(n + 1)],
            "query": [query(f"{n}-{k}") for k in range(2)],
        }
        for n in range(4)
    ]
    asked = [question["id"] for user in targets for question in user["query"]]
    return {
        "user_others.json": others,
        "user_top_100_history.json": targets,
        "user_top_100_history_label.json": golds(asked),
    }


def user_split() -> Files:
    files: Files = {}
    for part, first in (("train", 10), ("dev", 60)):
        names = [str(first + n) for n in range(3)]
        files[f"{part}_questions.json"] = [
            query(name) | {"profile": [item(n), item(n + 1)]} for n, name in enumerate(names)
        ]
        files[f"{part}_outputs.json"] = golds(names)
    return files


def time_split() -> Files:
    """User 7 is in both parts, with two questions in dev; the second profile holds one item more."""
    early, mid, late = (
        item(n, date=date) for n, date in ((1, "2010-2-3"), (2, "2010-11-01"), (3, "2015-01-01"))
    )
    train = [query("t1") | {"user_id": "7", "profile": [mid, early]}]
    dev = [
        query("d1") | {"user_id": "7", "profile": [mid, early]},
        query("d2") | {"user_id": "8", "profile": [late]},
        query("d3") | {"user_id": "7", "profile": [late, early, mid]},
    ]
    return {
        "train_questions.json": train,
        "train_outputs.json": golds(["t1"]),
        "dev_questions.json": dev,
        "dev_outputs.json": golds(["d1", "d2", "d3"]),
    }


def write(folder: Path, files: Files) -> Path:
    """Write each value as JSON, or as it is when it is bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        data = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
        (folder / name).write_bytes(data)
    return folder


LAYOUTS: list[Callable[[], Files]] = [oppu, user_split, time_split]


def opened(root: Path, files: Files) -> LampData:
    return open_lamp(write(root / "data", files), RATING, root / "cache")


def outcome(root: Path, files: Files) -> LampData | str:
    """The opened data or the message of the InputError."""
    try:
        return opened(root, files)
    except InputError as error:
        return str(error)


def refusal(root: Path, files: Files) -> str:
    """The one line that refuses `files`; a conversion that fails leaves no table."""
    message = outcome(root, files)
    assert isinstance(message, str)
    assert "\n" not in message
    assert no_tables(root / "cache")
    return message


def no_tables(cache: Path) -> bool:
    return all(entry.suffix == ".lock" for entry in cache.glob("*"))
