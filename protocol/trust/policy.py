"""The policy of an edge: what its cloud may ask, agreed at enrolment and enforced by the edge.

A cloud that chooses its request well reads history out of an honest reply: one step of a shift of full rank
on all positions is the gradient, and the gradient's rows span the states of every token; two replies that
differ in one item give that item. So an edge computes nothing that its owner did not agree to beforehand. The
policy is signed by the key that signs releases.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from fedperfit.protocol.secure_sums.parameters import MOST_MEMBERS, CommitteeShape
from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.fields import PromptPositions, PromptStyle, TransportType, TravellingTask
from fedperfit.protocol.settings.rules import Unit
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.system.errors import InputError, MalformedFileError, count_of
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.tasks import task_id
from fedperfit.protocol.trust.published import parse_mirror
from fedperfit.protocol.trust.signing import SigningKey, signed_by

RequestKind = Literal["contribute", "personalize", "evaluate", "moments", "probe", "pull", "sum"]
"""Kinds of request that make an edge compute something."""
KINDS: tuple[RequestKind, ...] = get_args(RequestKind)
LEAST_ITEMS = 24
"""Fewest items whose sums leave a machine, unless its owner agreed to fewer."""
_CONTEXT = "policy"
_LEAST_REDUCTION = 4
"""Hidden size of the base model over the rank of a shift, at least. Nearer to full rank, the update of a step
is the gradient itself, and its rows span the hidden states of every token."""
_MOST_POSITIONS = 32
"""Positions of a prompt that a shift may act on; on all of them an update shows the whole of it."""
_SMALL = 8
"""Numbers of a whole shift over those of an update that tells clearly less, at least."""

LEAST_HONEST = 2
"""People in a sum, at least, whose machines are not the cloud's: a sum of one is no secret."""

Budget = Annotated[int, Field(ge=0), Unit("requests a day")]


class Policy(Settings):
    """All that a cloud may ask of one edge; anything else is refused before it is computed."""

    version: Annotated[int, Field(ge=1), Unit("number")]
    """Number of this agreement, counted from 1; an edge never goes back to an earlier one."""
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$"), Unit("SHA-256")]
    """Fingerprint of the base model."""
    task: TravellingTask
    prompt_form: PromptStyle
    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), Unit("layer numbers")]
    """Decoder layers of the collective shift."""
    rank: Annotated[int, Field(ge=1), Unit("dimensions")]
    """Rank of the collective shift."""
    hidden_size: Annotated[int, Field(ge=1), Unit("dimensions")]
    """Hidden size of the base model."""
    positions: PromptPositions
    personal_rank: Annotated[int, Field(ge=1), Unit("dimensions")]
    """Largest rank of the personal shift."""
    largest_change: Annotated[float, Field(gt=0), Unit("Frobenius norm")] = 8.0
    """Largest W - R, and largest b, that a broadcast shift may have in one layer."""
    least_rate: Annotated[float, Field(gt=0), Unit("per step")]
    """Smallest learning rate that may be asked for."""
    most_rate: Annotated[float, Field(gt=0, le=1), Unit("per step")]
    """Largest learning rate that may be asked for."""
    least_clip: Annotated[float, Field(gt=0), Unit("gradient norm")]
    """Smallest clipping norm; with a tiny one every gradient would be told in full precision."""
    most_clip: Annotated[float, Field(gt=0), Unit("gradient norm")]
    """Largest clipping norm that may be asked for."""
    most_decay: Annotated[float, Field(ge=0, lt=1), Unit("share per unit of learning rate")] = 0.1
    """Largest weight decay that may be asked for."""
    batch_size: Annotated[int, Field(ge=4), Unit("items")]
    """Items of a training step, exactly."""
    most_epochs: Annotated[int, Field(ge=1, le=1_000_000), Unit("passes over the items")]
    """Most epochs of one training."""
    update_epochs: Annotated[int, Field(ge=0, le=1_000_000), Unit("passes over the items")] = 0
    """Most epochs of a contribution, which tells the more of its items the longer it is trained; 0: as many
    as of any training."""
    most_steps: Annotated[int, Field(ge=1, le=100_000_000), Unit("steps")]
    """Most steps of one training, so that no request keeps the machine busy for ever."""
    max_items: Annotated[int, Field(ge=0), Unit("items")]
    """Latest items that a contribution trains on, exactly; 0 is all."""
    least_items: Annotated[int, Field(ge=4), Unit("items")] = LEAST_ITEMS
    """Fewest items of anything that leaves the machine; with fewer, nothing does."""
    growth: Annotated[int, Field(ge=4), Unit("items")] = 8
    """New items by which the items of contributions must differ from the earlier ones; until then the earlier
    ones are used again, so that no two contributions tell a few items by their difference."""
    most_answers: Annotated[int, Field(ge=1, le=1024), Unit("questions")] = 64
    """Most questions answered, or prompts read, side by side, so that no request takes all memory."""
    update_basis: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?\z"), Unit("SHA-256, or nothing")] = ""
    """Digest of the frozen basis in which contributions are coordinates; empty: they are whole shifts."""
    update_codec: TransportType = "float32"
    """Encoding of the coordinates, exactly."""
    update_numbers: Annotated[int, Field(ge=0), Unit("numbers")] = 0
    """Coordinates in one contribution; 0 without a basis."""
    committee_size: Annotated[int, Field(ge=0, le=MOST_MEMBERS), Unit("machines")] = 0
    """Members of the committee that contributions are sealed to, exactly; 0: contributions are open, and no
    sum of sealed ones is told."""
    committee_corrupt: Annotated[int, Field(ge=0), Unit("machines")] = 0
    """Members that the cloud may control without learning more than the sum, exactly."""
    committee_threshold: Annotated[int, Field(ge=0), Unit("machines")] = 0
    """Members whose answers make a sum, exactly."""
    fewest_contributors: Annotated[int, Field(ge=0), Unit("people")] = 0
    """Fewest people whose sum is told."""
    fewest_apart: Annotated[int, Field(ge=1), Unit("people")] = 1
    """Fewest people that sums under one release, taken from each other, may tell of, beside those whose
    machines the cloud may control; 1 bounds nothing."""
    clipping_norm: Annotated[float, Field(ge=0), Unit("Euclidean norm")] = 0.0
    """Norm to which a sealed contribution is clipped, unless it is a vote; exactly."""
    pair_items: Annotated[int, Field(ge=0), Unit("items")] = 0
    """Items that preference pairs are made of, exactly: sums over one pair more would tell that pair."""
    pair_source: Literal["contrast", "insights"] = "contrast"
    """Where the two texts of a pair come from, exactly."""
    contribute_per_day: Budget = 0
    """Contributions to the collective shift; 0 refuses them."""
    personalize_per_day: Budget = 0
    """Fits of the personal shift that the cloud may start; 0 refuses them."""
    evaluate_per_day: Budget = 0
    """Evaluations on held-out questions; 0 refuses them."""
    moments_per_day: Budget = 0
    """Summaries of preference pairs; 0 refuses them."""
    probe_per_day: Budget = 0
    """Rounds of the search for the group's directions; 0 refuses them."""
    pull_per_day: Budget = 0
    """Layer gradients; 0 refuses them."""
    sum_per_day: Budget = 0
    """Sums of sealed contributions that the machine tells as member of a committee; 0 refuses them."""
    mirror: Annotated[str, Unit("web address, or nothing")] = ""
    """Web address that releases are fetched from; empty: the cloud's own."""

    def model_post_init(self, context: Any, /) -> None:
        """Check what concerns several fields. Raises InputError."""
        positions = self.shape.positions
        if self.rank * _LEAST_REDUCTION > self.hidden_size:
            raise InputError(
                f"rank={self.rank} of {self.hidden_size} dimensions: an update of more than a "
                f"{_LEAST_REDUCTION}th of them would tell the texts behind it; no edge agrees to that"
            )
        if positions.first + positions.last > _MOST_POSITIONS:
            raise InputError(
                f"positions={self.positions}: an update over more than {_MOST_POSITIONS} positions would "
                "tell the texts behind it; no edge agrees to that"
            )
        if self.least_rate > self.most_rate or self.least_clip > self.most_clip:
            raise InputError("a range of the policy is empty")
        if 0 < self.max_items < self.least_items:
            raise InputError(f"max-items={self.max_items}: fewer than least-items={self.least_items}")
        if self.committee_size:
            self._check_committee()
        if self.mirror:
            parse_mirror(self.mirror)

    def _check_committee(self) -> None:
        CommitteeShape(self.committee_size, self.committee_corrupt, self.committee_threshold)
        if not self.update_basis:
            raise InputError(f"committee-size={self.committee_size}: sums need an update basis")
        least = self.committee_corrupt + LEAST_HONEST
        if self.fewest_contributors < least:
            raise InputError(
                f"fewest-contributors={self.fewest_contributors}: with committee-corrupt="
                f"{self.committee_corrupt} a sum of fewer than {least} could be that of one person; no edge "
                "agrees to that"
            )

    @property
    def task_id(self) -> str:
        """Name of the task in the headers of shifts."""
        return task_id(self.task)

    @property
    def shape(self) -> ShiftShape:
        """Shape of the collective shift."""
        return ShiftShape(
            layers=tuple(self.layers),
            rank=self.rank,
            hidden_size=self.hidden_size,
            positions=Positions.parse(self.positions),
        )

    def per_day(self, kind: RequestKind) -> int:
        """Return the budget of one kind of request."""
        budget: int = getattr(self, f"{kind}_per_day")
        return budget

    def most_epochs_of(self, kind: RequestKind) -> int:
        """Return the most epochs of a training of one kind."""
        return (self.update_epochs if kind == "contribute" else 0) or self.most_epochs

    @property
    def allowed(self) -> list[RequestKind]:
        """Kinds of request that are answered at all."""
        return [kind for kind in KINDS if self.per_day(kind)]

    def sentences(self) -> list[str]:
        """Tell the policy in words, for the person who agrees to it."""
        a_day = {kind: f"{count_of(self.per_day(kind), 'time')} a day" for kind in KINDS}
        items = f"your latest {count_of(self.max_items, 'item')}" if self.max_items else "all your items"
        lines = [
            f"The cloud may train for {self.task_id}, on base model {self.fingerprint[:16]}, and nothing "
            "else.",
        ]
        if self.contribute_per_day:
            lines += [
                f"Up to {a_day['contribute']} your machine trains a collective shift on "
                f"{items} and sends back {self._told_update()} (layers "
                f"{', '.join(map(str, self.layers))}, rank {self.rank}, positions {self.positions}).",
                f"It does so with at least {count_of(self.least_items, 'item')} only, and always with the "
                f"same ones until {self.growth} have been added, and goes through them at most "
                f"{count_of(self.most_epochs_of('contribute'), 'time')}.",
            ]
            if not self.update_basis or self.update_numbers * _SMALL > self.shape.parameters:
                told = (
                    "Such a shift is told whole"
                    if not self.update_basis
                    else "So many are near a whole shift"
                )
                lines.append(
                    f"{told}: the larger the model, the more words of those items can be read in it."
                )
            if not self.committee_size:
                lines.append("The cloud sees it, yours beside everybody else's, not their sum alone.")
        if self.committee_size:
            lines += [
                f"The cloud never sees it: it is sealed to a committee of {self.committee_size} machines "
                f"drawn from all that are enrolled; {self.committee_threshold} of them tell the sum of at "
                f"least {self.fewest_contributors} people; the cloud may control {self.committee_corrupt} of "
                "them and learns no more. Open updates are refused.",
                f"Up to {a_day['sum']} your machine may be one of them, and adds up what "
                "others sealed to it, one sum in a round.",
            ]
            if self.fewest_apart > 1:
                lines.append(
                    "It tells no sum that, taken from earlier ones under the same release, would tell of "
                    f"fewer than {self.fewest_apart} people whose machines are not the cloud's."
                )
        if self.personalize_per_day:
            lines.append(
                f"Up to {a_day['personalize']} it may have your personal shift (rank "
                f"{self.personal_rank} at most) fitted anew; the personal shift stays here."
            )
        if self.evaluate_per_day:
            lines.append(
                f"Up to {a_day['evaluate']} it may ask how well you are answered; sums of scores leave "
                f"only if you share metrics, and of at least {count_of(self.least_items, 'question')}."
            )
        if self.moments_per_day or self.probe_per_day:
            lines.append(
                f"It may ask {a_day['moments']} for sums over preference pairs made of "
                f"{self.pair_items} of your items, and {count_of(self.probe_per_day, 'time')} for sums of a "
                "probe over them."
            )
        if self.pull_per_day:
            lines.append(f"It may ask {a_day['pull']} for the gradient of your mean loss by layer.")
        lines.append(
            f"Trainings have learning rates of {self.least_rate:g} to {self.most_rate:g}, clip gradients at "
            f"{self.least_clip:g} to {self.most_clip:g}, and have batches of {self.batch_size} and at most "
            f"{count_of(self.most_epochs, 'epoch')} and {count_of(self.most_steps, 'step')}."
        )
        if self.mirror:
            lines.append(
                f"Your machine fetches releases from {self.mirror}: whoever serves them sees its network "
                "address and when it asks, and nothing else, and can change nothing."
            )
        refused = [kind for kind in KINDS if not self.per_day(kind)]
        if refused:
            lines.append(f"It may never ask for: {', '.join(refused)}.")
        return lines

    def _told_update(self) -> str:
        if not self.update_basis:
            return f"the shift: {self.shape.parameters:,} numbers"
        return (
            f"what changed in its {self.update_numbers:,} coordinates in the basis {self.update_basis[:16]}, "
            f"encoded as {self.update_codec}"
        )


def sign_policy(policy: Policy, key: SigningKey) -> dict[str, Any]:
    """Sign a policy.

    Returns:
        JSON values: the policy and its signature.
    """
    values = policy.to_flat()
    return {"policy": values, "signature": key.sign(_CONTEXT, values)}


def verify_policy(signed: object, *keys: str) -> Policy:
    """Read a signed policy.

    Args:
        signed: JSON values as `sign_policy` gives them.
        keys: Public keys, any of which may have signed it.

    Raises:
        MalformedFileError: It is not a policy, or not signed by one of the keys.
    """
    if not isinstance(signed, dict) or set(signed) != {"policy", "signature"}:
        raise MalformedFileError("not a signed policy")
    values = signed["policy"]
    try:
        json.dumps(values, allow_nan=False)
        if not any(signed_by(key, _CONTEXT, values, signed["signature"]) for key in keys):
            raise MalformedFileError("the policy is not signed by the cloud's key")
        return Policy.from_flat(values)
    except (TypeError, ValueError) as error:
        raise MalformedFileError(f"the policy is malformed: {error}") from None


def write_policy(path: Path, signed: dict[str, Any]) -> None:
    """Write a signed policy, as `sign_policy` gives it, to `path`."""
    write_json(path, signed)


def read_policy(path: Path, *keys: str) -> Policy:
    """Read a signed policy from a file. Raises as `verify_policy` does, naming the file."""
    try:
        return verify_policy(read_json(path), *keys)
    except MalformedFileError as error:
        raise MalformedFileError(f"{path}: {error}") from None
