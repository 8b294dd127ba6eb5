"""The guard of an edge: refuses whatever the policy does not allow, before anything is computed.

It knows what was agreed (`fedperfit.protocol.trust.policy`), what was asked today, and which items the
contributions of this machine are made of.
"""

import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedperfit.edge.consent.item_sets import changed, digested, linked, settled, told_next
from fedperfit.edge.consent.memory import GuardState
from fedperfit.edge.consent.refusal import Refused
from fedperfit.edge.consent.shift_rule import check_shift
from fedperfit.edge.consent.training_rule import check_form, check_steps, check_training
from fedperfit.edge.consent.update_rule import check_basis, check_sum, check_terms
from fedperfit.protocol.messages.settings import (
    CoordinateSettings,
    EvaluationSettings,
    LayerGradientSettings,
    PairSettings,
    PersonalSettings,
    TrainingSettings,
)
from fedperfit.protocol.messages.sums import SumSettings
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.packing import unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.tasks import Pair
from fedperfit.protocol.trust.policy import Policy, RequestKind

_Item = dict[str, Any]


class Guard:
    """Checks the requests to one agent; safe to use from many threads."""

    def __init__(
        self,
        path: Path,
        policy: Policy | None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Go on from what was remembered.

        Args:
            path: File of what is remembered, out of reach of anything that talks to the network.
            policy: What the owner agreed to; None refuses everything.
            clock: Current time, with its zone.
        """
        self._path, self.policy, self._clock = path, policy, clock
        self._lock = threading.Lock()
        self._state = read_form(path, GuardState) if path.exists() else GuardState(salt=secrets.token_hex(32))

    def contribution(self, packed: bytes, training: TrainingSettings, pairs: Sequence[Pair]) -> int:
        """Admit a round of stage 1, and count it.

        Args:
            packed: Collective shift that the cloud broadcast.
            training: How it asks for it to be trained.
            pairs: All training pairs of the person, oldest first.

        Returns:
            Number of the first pairs to train on, as `items` decides it.

        Raises:
            Refused: The owner did not agree to this.
        """
        policy = self._agreed("contribute")
        if policy.update_basis:
            raise Refused(f"contribute: a whole shift; agreed is the basis {policy.update_basis[:16]}")
        shift, header = unpack(packed)
        if (header.task, header.fingerprint) != (policy.task_id, policy.fingerprint):
            raise Refused("contribute: the shift is for another task or base model")
        return self._contribution(shift, training, pairs)

    def basis(self, wanted: CoordinateSettings, sums: SumSettings | None = None) -> None:
        """Check the basis that a round names, and its sum, before anything is read of it. Raises Refused."""
        check_basis("contribute", wanted, self._agreed("contribute"))
        check_terms("contribute", sums, self._required())

    def sum(self, terms: SumSettings, wanted: CoordinateSettings, number: int, clients: int) -> None:
        """Check a request for a sum over so many clients in a round, counted from 1. Raises Refused."""
        check_basis("sum", wanted, self._agreed("sum"))
        check_sum(terms, number, clients, self._required())

    def count_sum(self) -> None:
        """Count a sum that was not told before; raises Refused where as many as agreed were told today."""
        self._count("sum")

    def coordinates(self, coordinates: Coordinates, training: TrainingSettings, pairs: Sequence[Pair]) -> int:
        """Admit a round of stage 1 in the basis that `basis` checked, and count it; as `contribution`."""
        policy, basis = self._agreed("contribute"), coordinates.basis
        if (basis.task, basis.fingerprint) != (policy.task_id, policy.fingerprint):
            raise Refused("contribute: the basis is for another task or base model")
        if basis.numbers != policy.update_numbers:
            raise Refused(
                f"contribute: a basis of {basis.numbers} coordinates; agreed are {policy.update_numbers}"
            )
        return self._contribution(coordinates.shift(), training, pairs)

    def _contribution(self, shift: Shift, training: TrainingSettings, pairs: Sequence[Pair]) -> int:
        policy = self._required()
        self.shift("contribute", shift)
        check_training("contribute", training, policy)
        if training.max_items != policy.max_items:
            raise Refused(f"contribute: max-items={training.max_items}, agreed is {policy.max_items}")
        shared = self.items(pairs)
        check_steps("contribute", min(shared, policy.max_items or shared), training, policy)
        self._count("contribute")
        return shared

    def personalization(
        self, personal: PersonalSettings, training: TrainingSettings, pairs: Sequence[Pair]
    ) -> None:
        """Admit a fit of the personal shift to all pairs, and count it; raises Refused."""
        policy = self._agreed("personalize")
        if personal.rank > policy.personal_rank:
            raise Refused(f"personalize: rank={personal.rank}, agreed is at most {policy.personal_rank}")
        if 0 < training.max_items < policy.least_items:
            raise Refused(
                f"personalize: max-items={training.max_items}, agreed is at least {policy.least_items}, "
                "as scores of a shift of fewer would tell them"
            )
        check_training("personalize", training, policy)
        check_steps("personalize", len(pairs), training, policy)
        self._count("personalize")

    def fits(self, count: int, training: TrainingSettings, pairs: Sequence[Pair]) -> None:
        """Admit so many fits of a personal shift, one after the other; raises Refused."""
        check_steps("personalize", len(pairs), training, self._required(), fits=count)

    def evaluation(self, settings: EvaluationSettings) -> None:
        """Admit an evaluation, and count it; raises Refused."""
        self._form("evaluate", settings.prompt_form)
        self._side_by_side("evaluate", settings.batch_size)
        self._count("evaluate")

    def moments(self, settings: PairSettings, release: str, pairs: Sequence[Pair]) -> int:
        """Admit a summary of preference pairs, once for a release, and count it.

        Args:
            settings: How the preference pairs are to be made.
            release: Digest of the release in force; empty before the first.
            pairs: All training pairs of the person, oldest first.

        Returns:
            Number of the first pairs to use, as `items` decides it.

        Raises:
            Refused: The owner did not agree to this.
        """
        self._pairs("moments", settings)
        shared = self.items(pairs)
        self._count("moments", release)
        return shared

    def probe(self, settings: PairSettings, pairs: Sequence[Pair]) -> int:
        """Admit a round of a search over the preference pairs, and count it; as `moments`, more than once."""
        self._pairs("probe", settings)
        shared = self.items(pairs)
        self._count("probe")
        return shared

    def enough(self, kind: RequestKind, pairs: int) -> None:
        """Check the number of pairs behind a reply, before it leaves; of none, nothing is told.

        Raises:
            Refused: There are fewer than the policy's least.
        """
        least = self._required().least_items
        if 0 < pairs < least:
            raise Refused(f"{kind}: {pairs} pairs, at least {least} are needed")

    def layer_gradient(self, settings: LayerGradientSettings, release: str, pairs: Sequence[Pair]) -> int:
        """Admit a layer gradient, once for a release, and count it; as `moments`."""
        policy = self._agreed("pull")
        self._form("pull", settings.prompt_form)
        self._side_by_side("pull", settings.batch_size)
        if (settings.positions, settings.max_items) != (policy.positions, policy.max_items):
            raise Refused(
                f"pull: positions={settings.positions}, max-items={settings.max_items}; agreed are "
                f"{policy.positions} and {policy.max_items}"
            )
        shared = self.items(pairs)
        self._count("pull", release)
        return shared

    def tells(self, kind: RequestKind, pairs: Sequence[Pair], most: int = 0) -> bool:
        """Decide whether a loss or scores may be told of, where the owner shares them.

        Args:
            kind: Kind of request.
            pairs: All pairs or questions of the person that it is about, oldest first.
            most: Number of the latest ones that the sums are over; 0 for all.

        Returns:
            False where there are fewer than the policy's least, or few others than were told of before.
        """
        with self._lock:
            digests = [self._digest(pair.prompt, pair.target) for pair in pairs]
            told = told_next(self._required(), self._state.told.get(kind), digests, most)
            if told is None or not self._link(f"told/{kind}", told["digests"]):
                return False
            if told != self._state.told.get(kind):
                self._state.told[kind] = told
                self._keep()
            return True

    def selection(self, chosen: Sequence[_Item], every: Sequence[_Item]) -> list[_Item]:
        """Decide which items preference pairs are made of: the same until enough others are chosen.

        Args:
            chosen: Items that represent the person now.
            every: All items that pairs may be made of.

        Raises:
            Refused: A few of the items that pairs were made of before were changed.
        """
        with self._lock:
            known = {self._digest(*digested(item)): item for item in every}
            new = [self._digest(*digested(item)) for item in chosen]
            kept = settled(self._required(), self._state.selected, new, list(known))
            digests = list(dict.fromkeys(kept or ()))  # an earlier version told of copies
            if kept is None or not self._link("pairs", digests):
                raise Refused(
                    "a few items that pairs were made of were changed: their difference would tell them"
                )
            if digests != self._state.selected:
                self._state.selected = digests
                self._keep()
            return [known[digest] for digest in digests]

    def shift(self, kind: RequestKind, shift: Shift) -> None:
        """Check a broadcast shift: exact shape, orthonormal R, bounded W - R and b. Raises Refused."""
        check_shift(kind, shift, self._agreed(kind))

    def release(self, shift: Shift) -> None:
        """Check the shift of a release that nobody asked to be used, as `shift` does. Raises Refused."""
        check_shift("release", shift, self._required())

    def items(self, pairs: Sequence[Pair]) -> int:
        """Decide which pairs a contribution is made of.

        Two contributions are made of the same pairs, or of sets that differ in at least `growth`.

        Args:
            pairs: All training pairs of the person, oldest first.

        Returns:
            Number of the first pairs to use; those after them wait until there are enough.

        Raises:
            Refused: There are fewer than the policy's least, or a few of the pairs used before were changed.
        """
        policy = self._required()
        with self._lock:
            digests = [self._digest(pair.prompt, pair.target) for pair in pairs]
            pinned = self._state.pinned
            added, removed = len(set(digests) - set(pinned)), len(set(pinned) - set(digests))
            unchanged = digests[: len(pinned)] == pinned
            if not (unchanged and added < policy.growth and pinned):
                if pinned and added + removed < policy.growth:
                    told = changed(pinned, digests)
                    raise Refused(f"{told}; that would tell of them, unless at least {policy.growth} differ")
                pinned = digests
            sent = pinned[-policy.max_items :]  # a contribution is made of these alone; -0 is all
            distinct = len(set(sent))
            if distinct < policy.least_items:
                raise Refused(f"{distinct} different items, at least {policy.least_items} are needed")
            if not self._link("items", sent):
                raise Refused(
                    f"fewer than {policy.growth} items differ from those of some earlier contribution; their "
                    "difference would tell them"
                )
            if pinned != self._state.pinned:
                self._state.pinned = pinned
                self._keep()
            return len(pinned)

    def _link(self, kind: str, digests: list[str]) -> bool:
        """Remember a set of items that is told of; False where it differs from an earlier one in a few."""
        chain = linked(self._state.chains.get(kind), digests, self._required().growth)
        if chain is not None and chain != self._state.chains.get(kind):
            self._state.chains[kind] = chain
            self._keep()
        return chain is not None

    def _required(self) -> Policy:
        if self.policy is None:
            raise Refused("this folder holds no policy that its owner agreed to: enroll again")
        return self.policy

    def _agreed(self, kind: RequestKind) -> Policy:
        policy = self._required()
        if not policy.per_day(kind):
            raise Refused(f"{kind}: not agreed to")
        return policy

    def _form(self, kind: RequestKind, form: str) -> None:
        check_form(kind, form, self._agreed(kind))

    def _pairs(self, kind: RequestKind, settings: PairSettings) -> None:
        policy = self._agreed(kind)
        self._form(kind, settings.prompt_form)
        self._side_by_side(kind, settings.batch_size)
        if (settings.items, settings.source) != (policy.pair_items, policy.pair_source):
            raise Refused(
                f"{kind}: items={settings.items}, source={settings.source}; agreed are "
                f"{policy.pair_items} and {policy.pair_source}"
            )

    def _count(self, kind: RequestKind, release: str | None = None) -> None:
        policy = self._required()
        with self._lock:
            today = self._clock().astimezone(UTC).date().isoformat()
            if today > self._state.day:
                self._state.day, self._state.counts = today, {}
            if self._state.counts.get(kind, 0) >= policy.per_day(kind):
                raise Refused(f"{kind}: {policy.per_day(kind)} a day are agreed, and were asked for")
            if release is not None:
                if self._state.once.get(kind) == release:
                    raise Refused(f"{kind}: answered already for this release")
                self._state.once[kind] = release
            self._state.counts[kind] = self._state.counts.get(kind, 0) + 1
            self._keep()

    def _side_by_side(self, kind: RequestKind, count: int) -> None:
        most = max(self._agreed(kind).most_answers, self._agreed(kind).batch_size)
        if count > most:
            raise Refused(f"{kind}: batch-size={count}, agreed are at most {most}")

    def _digest(self, *parts: Any) -> str:
        text = json.dumps(list(parts)).encode()
        return hmac.new(bytes.fromhex(self._state.salt), text, hashlib.sha256).hexdigest()

    def _keep(self) -> None:
        write_json(self._path, asdict(self._state))
