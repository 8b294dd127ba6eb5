"""Clients with planted preference pairs that answer the search for the group's directions as an edge does."""

from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from flwr.app import Message
from tests.cloud.fake_grid import FakeGrid

from fedperfit.cloud.clients.exchange import Exchange
from fedperfit.cloud.job.directions import EVALUATIONS, RESTARTS, GroupDirections
from fedperfit.edge.chameleon.contribution import Memory, Probing, moments, probe
from fedperfit.edge.chameleon.identify import States
from fedperfit.edge.records import probe_request, refusal, reply
from fedperfit.protocol.messages.keys import MOMENTS_KEY, MOMENTS_TYPE, SETTINGS_RECORD, SUMS_KEY
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.messages.settings import PairSettings
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.probe import Frame, Moments, evaluate, minimise
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.flower_internals import transmitted
from fedperfit.protocol.tasks import TASKS

LAYERS, SIZE, PAIRS = 6, 384, 10
NOISE = (0.6, 0.5, 0.1, 0.6, 0.2, 0.5)
"""By layer: where it is least, the probe tells most."""
SETTINGS = PairSettings(items=PAIRS, source="contrast", batch_size=8, prompt_form="lamp")


def planted(clients: int, pairs: int = PAIRS, size: int = SIZE, seed: int = 0) -> dict[str, States]:
    """States p = m_P + s u + noise, n = m_N - s u + noise, s = +-1 by pair, leaning by person."""
    start = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=start)

    u = torch.nn.functional.normalize(draw(LAYERS, 1, size), dim=-1)
    m = draw(LAYERS, 2, 1, size)
    noise = torch.tensor(NOISE)[:, None, None] / 4
    found = {}
    for number in range(clients):
        leaning = torch.rand(1, generator=start)
        s = (torch.rand(LAYERS, pairs, 1, generator=start) < leaning) * 2.0 - 1
        found[f"c{number:03}"] = States(
            m[:, 0] + s * u + noise * draw(LAYERS, pairs, size),
            m[:, 1] - s * u + noise * draw(LAYERS, pairs, size),
        )
    return found


def pooled(people: Mapping[str, States], *, edited: int, seed: int) -> tuple[Directions, torch.Tensor]:
    """The directions of all pairs in one place, and the probe's loss by layer."""
    frame = Frame.of([Moments.of(one.personalized, one.neutral) for one in people.values()])
    joined = States.joined(list(people.values()))
    p, n = frame.coordinates(joined.personalized, joined.neutral)

    def everyone(probes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, gradient = evaluate(p, n, probes)
        return loss / len(joined), gradient / len(joined)

    found = minimise(everyone, frame, seed, restarts=RESTARTS, evaluations=EVALUATIONS)
    layers = sorted(found.loss.argsort(stable=True)[:edited].tolist())
    first = torch.linalg.svd(joined.personalized.double(), full_matrices=False).Vh[:, 0].float()
    return Directions.of(layers, first[layers], found.theta[layers]), found.loss


class Keepers:
    """Answers for every client of `people`."""

    def __init__(self, people: Mapping[str, States], monkeypatch: pytest.MonkeyPatch) -> None:
        self.people, self.memory = dict(people), Memory()
        self.sent: list[Message] = []
        """Every message, both ways."""
        size = next(iter(people.values())).personalized.shape[2]
        self.base = SimpleNamespace(card=SimpleNamespace(layers=LAYERS, hidden_size=size))
        monkeypatch.setattr(
            "fedperfit.edge.chameleon.contribution.preference_states",
            lambda reader, history, items, source, settle: self.people[history.name],
        )

    def answer(self, client: str, message: Message) -> list[Message]:
        """Reply as an honest client does."""
        asked = transmitted(message)
        history = SimpleNamespace(name=client, task=TASKS["LaMP_4"])
        about = (
            SimpleNamespace(base=self.base, history=history, shared_history=history, encoder=""),
            PairSettings.from_config(dict(asked.content[SETTINGS_RECORD])),
        )
        try:
            if asked.metadata.message_type == MOMENTS_TYPE:
                told, key = moments(*about, self.memory), MOMENTS_KEY
            else:
                told, key = probe(*about, Probing(**probe_request(asked)), self.memory), SUMS_KEY
            replied = reply(asked, told.items, statistics={key: told.data} if told.data else None)
        except InputError as error:
            replied = refusal(asked, type(error).__name__)
        self.sent += [message, replied]
        return [transmitted(replied)]


def search(grid: FakeGrid, ledger: Ledger) -> GroupDirections:
    """Over all the grid's clients."""
    size = SIZE
    return GroupDirections(
        Exchange(grid, ledger, grid.clients), SETTINGS, layers=LAYERS, hidden_size=size, deadline=5.0
    )
