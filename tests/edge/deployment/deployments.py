"""A deployed edge in a folder of a test's own, and what a cloud would send it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
import torch

from fedperfit.edge.deployment.deployed import Deployed
from fedperfit.edge.deployment.endpoint import connect
from fedperfit.edge.deployment.home import AgentSettings, Home
from fedperfit.edge.deployment.server import serving
from fedperfit.edge.vault.keys import FileKey
from fedperfit.protocol.messages.settings import PersonalSettings, TrainingSettings
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.trust.policy import KINDS, Policy, sign_policy, write_policy
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.signing import SigningKey

CLOUD = SigningKey()
TRAINING = TrainingSettings(
    seed=0,
    epochs=2,
    batch_size=8,
    learning_rate=1e-2,
    weight_decay=0.01,
    clip_norm=1.0,
    max_items=0,
    prompt_form="lamp",
)
PERSONAL = PersonalSettings(rank=2, additive=False, slot="full")


def settings(**changed: object) -> AgentSettings:
    fields = {"base_model": "embedded", "release_key": CLOUD.public, "device": "cpu"} | changed
    return AgentSettings(**fields)  # type: ignore[arg-type]


def releases(header: ShiftHeader, count: int, directions: Directions | None = None) -> list[Release]:
    """A chain issued now."""
    first, *more = (Shift.identity(header.shape, seed=seed) for seed in range(count))
    chain = [Release.first(first, header, CLOUD, directions=directions)]
    for shift in more:
        chain.append(chain[-1].next(shift, header, CLOUD, directions=directions))
    return chain


def group(header: ShiftHeader) -> Directions:
    """Directions of a group, at random."""
    start = torch.Generator().manual_seed(3)
    sides = (torch.randn(2, header.shape.hidden_size, generator=start) for _ in range(2))
    return Directions.of((4, 5), *sides)


def policy(**changes: object) -> Policy:
    """A policy that allows what tests of other things ask for."""
    values: dict[str, object] = {
        "version": 1,
        "fingerprint": read_card("embedded").fingerprint,
        "task": "LaMP_2M",
        "prompt_form": "lamp",
        "layers": [3, 4],
        "rank": 4,
        "hidden_size": 192,
        "positions": "l7",
        "personal_rank": 8,
        "largest_change": 1e3,
        "least_rate": 1e-6,
        "most_rate": 1.0,
        "least_clip": 1e-3,
        "most_clip": 1e3,
        "batch_size": 8,
        "most_epochs": 1_000_000,
        "most_steps": 100_000_000,
        "max_items": 0,
        "least_items": 4,
        "growth": 4,
        "pair_items": 6,
        **{f"{kind}_per_day": 1000 for kind in KINDS},
    }
    return Policy(**values | changes)


def agree(folder: Path, agreed: Policy) -> None:
    """Agree to a policy in a person's folder."""
    write_policy(Home(folder).policy, sign_policy(agreed, CLOUD))


@contextmanager
def deployed(folder: Path, **changed: object) -> Iterator[Deployed]:
    if not Home(folder).policy.exists():
        agree(folder, policy())
    with Deployed.open(Home(folder), settings(**changed), FileKey(), lambda: datetime.now(UTC)) as edge:
        yield edge


@contextmanager
def served(edge: Deployed) -> Iterator[tuple[grpc.Channel, grpc.Channel]]:
    """Channels to the bridge and to the owner's service."""
    with serving(edge, edge.home):
        bridge, owner = (connect(folder) for folder in (edge.home.bridge, edge.home.owner))
        with bridge, owner:
            yield bridge, owner
