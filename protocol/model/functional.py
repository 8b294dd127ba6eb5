"""What a base model does, in a few numbers: one for all ways of storing its weights, and for no other model.

The fingerprint of the files differs between fp32, bf16, 8 and 4 bit. The functional fingerprint holds, for
some places in fixed texts, the likeliest next tokens and their log-probabilities; another copy of the model
is compared by how far its own log-probabilities of these tokens are from those.
"""

import json
from dataclasses import dataclass

import torch

from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.model.prompt_tokens import prompt_tokens, target_tokens
from fedperfit.protocol.system.errors import InputError

TOLERANCE = 0.5
"""Greatest distance of two copies of one model, in nats. Seen with the embedded model and SmolLM2: 16 bit up
to 0.03, 8 bit 0.03, 4 bit 0.2 to 0.41; half the rope frequencies 0.68 and more. A model that was tuned only a
little may be nearer than its own 4 bit: only the fingerprint of the files tells that."""
_TEXTS = (
    "The old lighthouse keeper wrote in his diary that the storm of that winter had been",
    "To make bread you need flour, water, yeast and salt. First you mix the flour with",
    "Q: What is the capital of France?\nA: The capital of France is",
    "def add(a, b):\n    return a + b\n\ndef subtract(a, b):\n    return",
    "In 1969 the first people walked on the moon. In 1989 the Berlin wall",
    "She opened the letter slowly, read it twice and then said to her brother: I am",
)
_PLACES = 6
"""Last places of each text whose predictions count."""
_LIKELIEST = 5
"""Next tokens told of each place."""
_STEPS = 64
"""Steps of a nat in which log-probabilities are written."""


@dataclass(frozen=True)
class FunctionalFingerprint:
    """Predictions of one model, P places with K tokens each."""

    tokens: list[list[int]]
    """(P, K) likeliest next tokens."""
    logs: list[list[int]]
    """(P, K) their log-probabilities, in 1/64 nat."""

    def text(self) -> str:
        """Write the fingerprint as one line."""
        return json.dumps([self.tokens, self.logs], separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> "FunctionalFingerprint":
        """Read what `text` wrote.

        Args:
            text: One line.

        Raises:
            InputError: It is something else.
        """
        try:
            tokens, logs = json.loads(text)
            lengths = {len(row) for row in (*tokens, *logs)}
            whole = all(type(number) is int for row in (*tokens, *logs) for number in row)
            good = len(tokens) == len(logs) and len(lengths) == 1 and whole and min(map(min, tokens)) >= 0
        except (ValueError, TypeError):
            good = False
        if not good:
            raise InputError("not a functional fingerprint")
        return cls(tokens, logs)

    def check(self, base: BaseModel, name: str) -> None:
        """Check that a model is a copy of this one, however its weights are stored.

        Args:
            base: The model.
            name: Its name, for the message.

        Raises:
            InputError: It is another model.
        """
        distance = self.distance(base)
        if not distance <= TOLERANCE:
            raise InputError(
                f"{name} is another base model: its predictions are {distance:.2g} nats from the cloud's, "
                f"a copy's at most {TOLERANCE}"
            )

    def distance(self, base: BaseModel) -> float:
        """Mean difference of a model's log-probabilities from these, weighted by probability, in nats.

        Args:
            base: A model; one with another vocabulary is infinitely far.
        """
        logs = _log_probabilities(base)
        tokens = torch.tensor(self.tokens, dtype=torch.long)
        if len(tokens) != len(logs) or int(tokens.max()) >= logs.shape[1]:
            return float("inf")
        theirs = torch.tensor(self.logs) / _STEPS
        gaps = (logs.gather(1, tokens) - theirs).abs()
        return float((theirs.exp() * gaps).sum() / theirs.exp().sum())


def functional_fingerprint(base: BaseModel) -> FunctionalFingerprint:
    """Take the functional fingerprint of a model.

    Args:
        base: The frozen model, stored and run in any type.
    """
    logs, tokens = _log_probabilities(base).topk(_LIKELIEST)
    return FunctionalFingerprint(tokens.tolist(), (logs * _STEPS).round().int().tolist())


@torch.inference_mode()
def _log_probabilities(base: BaseModel) -> torch.Tensor:
    """Return (places, vocabulary) log-probabilities of what follows in the texts, each run by itself."""
    rows = []
    for text in _TEXTS:
        (ids,) = prompt_tokens(base, [text])
        if base.mark:  # a decoder predicts what it writes, and not what is read
            ids += target_tokens(base, [text], chat=False)[0][:-1]
        logits = base.model(input_ids=torch.tensor([ids], device=base.device), use_cache=False).logits
        rows.append(logits[0, -_PLACES:].float().log_softmax(-1).cpu())
    return torch.cat(rows)
