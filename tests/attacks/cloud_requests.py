"""What attack tests share: a person, the policy of an honest cloud, and ways to read texts out of updates."""

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from tests.edge.edge_clients import write_client
from transformers import DynamicCache

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.basis_file import CoordinateRequest
from fedperfit.edge.agent.coordinates import contribute_alone
from fedperfit.edge.consent.guard import Guard
from fedperfit.edge.engine.examples import Example, encode
from fedperfit.protocol.messages.settings import CoordinateSettings, TrainingSettings
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.layers import decoder_layers
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.coordinate_packing import Agreement, pack_coordinates, unpack_update
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.tasks import PromptForm
from fedperfit.protocol.trust.policy import Policy

DECOYS = 200
"""Other tokens that each true one is told from: guessing is right once in 201 times."""


def policy(base: BaseModel, **changes: object) -> Policy:
    """What a cloud with the quickstart settings asks its edges to agree to."""
    values = {
        "version": 1,
        "fingerprint": base.card.fingerprint,
        "task": "LaMP_2M",
        "prompt_form": "lamp",
        "layers": [3, 4],
        "rank": 8,
        "hidden_size": base.card.hidden_size,
        "positions": "l7",
        "personal_rank": 4,
        "least_rate": 1e-3,
        "most_rate": 4e-2,
        "least_clip": 0.25,
        "most_clip": 4.0,
        "batch_size": 8,
        "most_epochs": 20,
        "update_epochs": 2,
        "most_steps": 100_000,
        "max_items": 24,
        "contribute_per_day": 40,
        "personalize_per_day": 5,
        "evaluate_per_day": 20,
    }
    return Policy(**values | changes)


def in_basis(basis: Basis, codec: str = "sign") -> dict[str, object]:
    """What a policy says whose updates are coordinates, by default of one bit each."""
    return {"update_basis": basis.digest, "update_codec": codec, "update_numbers": basis.numbers}


def training(**changes: object) -> TrainingSettings:
    """An honest round of stage 1."""
    values = {
        "seed": 0,
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 5e-3,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "max_items": 24,
        "prompt_form": "lamp",
    }
    return TrainingSettings(**values | changes)  # type: ignore[arg-type]


def shape(base: BaseModel, **changes: object) -> ShiftShape:
    """The shape that was agreed to, or another."""
    values = {
        "layers": (3, 4),
        "rank": 8,
        "hidden_size": base.card.hidden_size,
        "positions": Positions.parse("l7"),
    }
    return ShiftShape(**values | changes)  # type: ignore[arg-type]


def packed(shift: Shift, base: BaseModel) -> bytes:
    """A shift as the cloud broadcasts it."""
    return pack(shift, ShiftHeader(shift.shape, "LaMP_2M", base.card.fingerprint, 0))


@dataclass
class Edge:
    """A person's agent, with a guard or without."""

    agent: Agent
    guard: Guard | None

    @classmethod
    def make(
        cls,
        folder: Path,
        base: BaseModel,
        *,
        guarded: bool,
        items: int = 32,
        seed: str = "client",
        basis: Basis | None = None,
    ) -> "Edge":
        agent = Agent(write_client(folder, seed=seed, items=items), base)
        agreed = {} if basis is None else in_basis(basis)
        return cls(agent, Guard(folder / "guard.json", policy(base, **agreed)) if guarded else None)

    def contribute(self, shift: Shift, settings: TrainingSettings) -> bytes:
        """The update, as `Deployed.contribute` would send it."""
        data = packed(shift, self.agent.base)
        if self.guard is not None:
            pairs = self.agent.history.pairs(PromptForm.LAMP, 0)
            self.agent.shared_pairs = self.guard.contribution(data, settings, pairs)
        return self.agent.contribute(data, settings).update

    def contribute_coordinates(
        self, coordinates: Coordinates, settings: TrainingSettings, codec: str = "sign"
    ) -> torch.Tensor:
        """What the update changes in the coordinates, as `Deployed.contribute_coordinates` would send it."""
        basis = coordinates.basis
        agreement = Agreement(basis.digest, codec, 0)
        wanted = CoordinateSettings(basis=basis.digest, codec=codec)  # type: ignore[arg-type]
        request = CoordinateRequest(pack_coordinates(coordinates, agreement), wanted, basis.to_bytes())
        if self.guard is not None:
            self.guard.basis(wanted)
            pairs = self.agent.history.pairs(PromptForm.LAMP, 0)
            self.agent.shared_pairs = self.guard.coordinates(coordinates, settings, pairs)
        update = contribute_alone(self.agent, request, settings).update
        return unpack_update(update, agreement, basis.numbers)

    def examples(self, latest: int) -> list[Example]:
        """The pairs as token ids: what the cloud must not learn."""
        return encode(self.agent.base, self.agent.history.pairs(PromptForm.LAMP, latest))


class _Reached(Exception):
    """The layer that was wanted has been computed."""


@torch.no_grad()
def states(base: BaseModel, prefix: Sequence[int], tokens: Sequence[int], layer: int) -> torch.Tensor:
    """Hidden states after decoder layer `layer` of each token when it follows `prefix`: (tokens, d)."""
    kept: list[torch.Tensor] = []
    known = DynamicCache()

    def keep(module: torch.nn.Module, inputs: object, output: torch.Tensor | tuple[torch.Tensor]) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)
        raise _Reached

    hook = decoder_layers(base.model)[layer].register_forward_hook(keep)
    try:
        for ids in (torch.tensor([prefix]), torch.tensor(tokens)[:, None]):
            if len(kept):
                known.batch_repeat_interleave(len(tokens))
            with suppress(_Reached):
                base.model.model(input_ids=ids, past_key_values=known, use_cache=True)
    finally:
        hook.remove()
    return kept[-1][:, -1].double()


def candidates(base: BaseModel, truth: int, rng: random.Random) -> list[int]:
    """The true token, and `DECOYS` others."""
    return [truth, *[t for t in rng.sample(range(len(base.tokenizer)), DECOYS + 1) if t != truth][:DECOYS]]


def read_tokens(
    base: BaseModel, directions: torch.Tensor, example: Example, layer: int, places: Sequence[int]
) -> float:
    """How many tokens are told from decoys by how much of their state lies in a span of directions.

    The reader is generous: it is given all true tokens before each one.

    Args:
        base: Frozen base model.
        directions: (n, d) orthonormal rows.
        example: The text.
        layer: Decoder layer whose states the span is of.
        places: Token positions to read.

    Returns:
        Share of the tokens that score highest among `DECOYS` others.
    """
    rng = random.Random(str(example.prompt))
    right = 0
    for place in places:
        tokens = candidates(base, example.prompt[place], rng)
        hidden = states(base, example.prompt[:place], tokens, layer)
        energy = (hidden @ directions.T).square().sum(1) / hidden.square().sum(1)
        right += int((energy[0] > energy[1:]).all())
    return right / len(places)


def span(rows: torch.Tensor, tolerance: float = 1e-6, most: int | None = None) -> torch.Tensor:
    """Orthonormal rows that span `rows` (n, d), the strongest first; at most `most`."""
    _, values, directions = torch.linalg.svd(rows.double(), full_matrices=False)
    return directions[values > tolerance * values[0]][:most]
