"""Three people's conversations in a federation over a network, then asked through OpenAI's client.

Makes a cloud of the task `messages` in a new folder, has three people of different styles join it, trains,
and asks each edge's endpoint for its reply to turns that it never saw, at the base stage and at the personal
one. Prints chrF and the loss of the person's own replies, and the paired differences with 95 % bootstrap
intervals over turns. Needs nginx, bubblewrap, and `smollm2` or another instruct model.

    python -m tests.edge.web.by_hand.conversations
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import openai
import torch
from tests.attacks.by_hand.kills import Kept, answering, program

from fedperfit.edge.deployment.deployed import Deployed
from fedperfit.edge.deployment.home import Home, read_settings
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.paths.plain import plain_losses
from fedperfit.edge.vault.keys import FileKey
from fedperfit.protocol.messages.settings import Stage
from fedperfit.protocol.system.files import json_lines, write_json, write_json_lines
from fedperfit.protocol.system.flower import free, free_ports
from fedperfit.protocol.system.processes import wait_until
from fedperfit.protocol.tasks import PromptForm
from fedperfit.protocol.tasks.text_metrics import TEXT_METRICS

STYLES = {
    "ada": "Dear {name}, {answer} I remain, with kind regards, Ada.",
    "ben": "hey {name}! {answer} cheers, b",
    "carl": "{name}: {answer} Done. C.",
}
LEARNED = [
    ("Can we meet on Monday?", "Monday suits me."),
    ("Is the report finished?", "It is nearly finished."),
    ("Who brings the cake?", "I bring the cake."),
    ("May I borrow the bicycle?", "The bicycle is in the shed."),
    ("When does the train leave?", "It leaves at nine."),
    ("Do you like the new office?", "I like it."),
    ("Shall we paint the fence?", "We paint it in May."),
    ("Where are the keys?", "They lie on the shelf."),
    ("Did the parcel arrive?", "It arrived this morning."),
    ("How was the concert?", "It was splendid."),
    ("Which wine do we take?", "We take the red one."),
    ("Is the heating on?", "It is on again."),
    ("Can you feed the cat?", "I feed it at six."),
    ("Have you read the contract?", "I have read it twice."),
    ("Does the printer work?", "It works again."),
    ("Shall I book a table?", "A table for four, please."),
]
HELD_OUT = [
    ("Is the car repaired?", "It is repaired."),
    ("Can we talk tomorrow?", "Tomorrow suits me."),
    ("Who waters the plants?", "I water the plants."),
    ("Where is the ladder?", "It is in the cellar."),
    ("How was the holiday?", "It was too short."),
    ("When is the meeting?", "It is at noon."),
    ("Do you need the projector?", "I need it on Friday."),
    ("Did you find the letter?", "I found it yesterday."),
    ("Shall we cancel the trip?", "We go all the same."),
    ("Is the bakery open?", "It opens at seven."),
    ("May I park in the yard?", "The yard is free."),
    ("Which colour do we choose?", "We choose the blue."),
]
FEDPERFIT = [sys.executable, "-P", "-c", "from fedperfit.simulation.cli import main; main()"]
NAMES = ("Max", "Mia", "Tom", "Lea")
"""Who asks."""
CLOUD = {
    "clients": 3,
    "rounds": 3,
    "personal-epochs": 4,
    "update-basis": "public",
    "transport-dtype": "sign",
    "collective-learning-rate": 3e-3,
    "deadline-seconds": 900.0,
}
_SECONDS = 1200.0
_LONGEST = 48
"""Tokens of a reply."""
_RESAMPLES = 10_000


def conversation(name: str, said: tuple[str, str], style: str) -> dict[str, Any]:
    """Return a conversation of one question and its answer in a style."""
    asked, answer = said
    turns = [("user", f"{name} asks: {asked}"), ("assistant", style.format(name=name, answer=answer))]
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


STAGES = (Stage.BASE, Stage.PERSONAL)


def prepare(folder: Path, base_model: str) -> None:
    """Write the people's files, make a basis of conversations that are nobody's, and the cloud."""
    for place, (person, style) in enumerate(STYLES.items()):
        (folder / person).mkdir()
        for file, some in (("history", [*LEARNED, *LEARNED[::-1]]), ("questions", HELD_OUT)):
            lines = [conversation(NAMES[(i + place) % 4], said, style) for i, said in enumerate(some)]
            write_json_lines(folder / person / f"{file}.jsonl", lines)
    write_json(folder / "public.json", [conversation("Max", said, "{answer}") for said in LEARNED])
    model = ["--preset", "small_instruct", "--task", "messages", "--base-model", base_model]
    basis = folder / "update.basis"
    _run(*FEDPERFIT, "basis", basis, "--items", folder / "public.json", *model)
    values = CLOUD | {"basis-file": basis}
    chosen = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    _run(*program("cloud"), "init", folder / "cloud", *model, *chosen)


def train(folder: Path) -> None:
    """Run the federation, so that every edge has its personal shift; it has ended afterwards."""
    with ExitStack() as kept:
        kept.enter_context(Kept([*program("cloud"), "up", str(folder / "cloud")], folder / "cloud.log"))
        for person in STYLES:
            own, bundle = folder / person, folder / f"{person}.bundle"
            _run(*program("cloud"), "enroll", folder / "cloud", person, "--out", bundle)
            join = [*program("edge"), "join", bundle, "--folder", folder / f"{person}-edge", "--agree"]
            join += ["--history", own / "history.jsonl", "--questions", own / "questions.jsonl"]
            kept.enter_context(Kept([*map(str, join), "--share-metrics"], folder / f"{person}.log"))
        homes = [Home(folder / f"{person}-edge") for person in STYLES]
        if not wait_until(lambda: all(answering(home) for home in homes), _SECONDS):
            raise SystemExit("not all edges came up")
        _run(*program("cloud"), "run", folder / "cloud")
        for home in homes:
            ask(home)


def ask(home: Home) -> None:
    """Write down what the endpoint replies to each held-out turn at each stage."""
    (folder := home.folder.parent / "replies").mkdir(exist_ok=True)
    person = home.folder.name.removesuffix("-edge")
    replies = []
    with served(home) as client:
        for _, line in json_lines(home.folder.parent / person / "questions.jsonl"):
            *turns, _ = line["messages"]
            for stage in STAGES:
                reply = client.chat.completions.create(
                    model=f"fedperfit-{stage}", messages=turns, max_tokens=48
                )
                said = reply.choices[0].message.content
                replies.append({"stage": stage, "said": said, "prompt-tokens": reply.usage.prompt_tokens})
    write_json_lines(folder / f"{person}.jsonl", replies)


@contextmanager
def served(home: Home) -> Iterator[openai.OpenAI]:
    """Serve an edge's endpoint to OpenAI's client inside the block."""
    (port,) = free_ports(1)
    command = [*program("edge"), "serve", str(home.folder), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            if not wait_until(lambda: not free(port), 120):
                raise SystemExit("the endpoint did not come up")
            token = (home.owner / "token").read_text()
            yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=token, timeout=600)
        finally:
            process.terminate()


def compare(home: Home) -> Iterator[dict[str, float]]:
    """Score the replies, and the person's own ones under the shifts, over prompts of the same length.

    Args:
        home: Folder of an edge that is not running.

    Yields:
        Of each held-out turn, personal minus base: `chrf`, and `loss` in nats per token of the own reply.
    """
    person = home.folder.name.removesuffix("-edge")
    replies = (reply for _, reply in json_lines(home.folder.parent / "replies" / f"{person}.jsonl"))
    with Deployed.open(home, read_settings(home), FileKey()) as edge:
        base, stages = edge.agent.base, edge.stages
        pairs = edge.agent.history.asked(PromptForm.CHAT)
        for example, pair in zip(encode(base, pairs), pairs, strict=True):
            scores: dict[str, list[float]] = {"chrf": [], "loss": []}
            for stage in STAGES:
                reply = next(replies)
                if reply["prompt-tokens"] != len(example.prompt):
                    raise SystemExit(f"{person}: the endpoint's prompt is not the one of training")
                with torch.no_grad():
                    loss = plain_losses(base, stages.stack(stage), [(0, example)])
                scores["loss"].append(float(loss[0]))
                scores["chrf"].append(TEXT_METRICS["chrf"](reply["said"], pair.target))
            print(person, {name: [round(value, 3) for value in values] for name, values in scores.items()})
            yield {name: personal - bare for name, (bare, personal) in scores.items()}


def main() -> None:
    """Run in a new folder; exit with 1 where the personal replies are not beyond chance better."""
    parser = argparse.ArgumentParser(description="Three people's conversations, asked in a chat.")
    parser.add_argument("--base-model", default="smollm2", help="an instruct model (default: smollm2)")
    base_model = parser.parse_args().base_model
    folder = Path(mkdtemp(prefix="conversations-"))
    print(f"in {folder}", flush=True)
    prepare(folder, base_model)
    train(folder)
    turns = [turn for person in STYLES for turn in compare(Home(folder / f"{person}-edge"))]
    for name in turns[0]:
        gains = np.array([turn[name] for turn in turns])
        means = np.random.default_rng(0).choice(gains, (_RESAMPLES, len(gains))).mean(1)
        low, high = np.quantile(means, (0.025, 0.975))
        print(f"{name}: personal - base {gains.mean():+.3f} [{low:+.3f}, {high:+.3f}] on {len(gains)} turns")
        if low <= 0 <= high:
            raise SystemExit(f"{name}: no difference beyond chance")


def _run(*words: Any) -> None:
    subprocess.run([str(word) for word in words], check=True)


if __name__ == "__main__":
    main()
