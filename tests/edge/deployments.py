"""A deployed edge in a folder of a test's own, and what a cloud would send it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc

from edge.deployed import Deployed
from edge.endpoint import connect
from edge.home import AgentSettings, Home
from edge.keys import FileKey
from edge.server import serving
from protocol.packing import ShiftHeader
from protocol.release import Release
from protocol.settings import PersonalSettings, TrainingSettings
from protocol.shift import Shift
from protocol.signing import SigningKey

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


def releases(header: ShiftHeader, count: int) -> list[Release]:
    """A chain issued now."""
    chain = [Release.first(Shift.identity(header.shape, seed=0), header, CLOUD)]
    for seed in range(1, count):
        chain.append(chain[-1].next(Shift.identity(header.shape, seed=seed), header, CLOUD))
    return chain


@contextmanager
def deployed(folder: Path, **changed: object) -> Iterator[Deployed]:
    with Deployed.open(Home(folder), settings(**changed), FileKey(), lambda: datetime.now(UTC)) as edge:
        yield edge


@contextmanager
def served(edge: Deployed) -> Iterator[tuple[grpc.Channel, grpc.Channel]]:
    """Channels to the bridge and to the owner's service."""
    with serving(edge, edge.home):
        bridge, owner = (connect(folder) for folder in (edge.home.bridge, edge.home.owner))
        with bridge, owner:
            yield bridge, owner
