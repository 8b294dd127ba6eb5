"""One person's part in secure sums: keys, the enrolled, and what was answered.

A member tells its sum over one list of clients in a round. What it answers is on disk before the answer goes
out, so that neither another request nor a restart makes it tell a second one: two sums over lists that differ
by one client would tell that client's share. The very same request, of a cloud that was killed, gets the very
same answer, from which nothing new can be learned. The lists are kept: no sum of another round or run is told
that, taken from earlier ones, would tell of too few people (`protocol.secure_sums.cohorts`).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedperfit.protocol.secure_sums.cohorts import keeps_together
from fedperfit.protocol.secure_sums.keys import Directory, SumKeys
from fedperfit.protocol.secure_sums.sealing import BadShare, contribute, open_share
from fedperfit.protocol.secure_sums.session import Session
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError, count_of
from fedperfit.protocol.system.files import create_whole, read_parsed, write_atomic, write_json

if TYPE_CHECKING:
    import torch  # keys are made without it

KEYS = "sums.key"
"""File in a person's folder: its private keys for sums."""
ANSWERED = "sums-answered"
"""Folder there: a file for every round in which it told a sum as a member."""
LISTS = "sums-lists"
"""Folder there: a file for every release under which it told sums, with the names in each of them."""


class AlreadyAnswered(InputError):
    """The member has told its sum of this round, over other shares."""


class TooFewApart(InputError):
    """The sum, taken from earlier ones, would tell of too few people."""


@dataclass(frozen=True)
class MemberAnswer:
    """What a member tells the cloud."""

    total: bytes
    """Sum of the shares; empty where some cannot be opened."""
    bad: tuple[str, ...] = ()
    """Names of the clients whose shares cannot be opened."""


class SumParty:
    """A client with its keys, as contributor and member."""

    def __init__(
        self, folder: Path, name: str, directory: Directory, release: str = "", *, together: int = 1
    ) -> None:
        """Read the keys of a person's folder.

        Args:
            folder: The person's own folder, with its keys.
            name: Name under which the person is enrolled.
            directory: All that are enrolled.
            release: Digest of the release in force here; empty before the first.
            together: Fewest people that sums under one release, taken from each other, may tell of, those
                whose machines are the cloud's among them.

        Raises:
            InputError: If there are no keys, or they are broken.
        """
        self.name, self.directory, self.release = name, directory, release
        self._answered, self._together = folder / ANSWERED, together
        self._lists = folder / LISTS / f"{release or 'first'}.json"
        self._keys = _read_keys(folder / KEYS)

    def check_enrolled(self) -> None:
        """Raise InputError unless the person is enrolled with these keys."""
        if self.directory.of(self.name) != self._keys.public:
            raise InputError(f"{self.name} is enrolled with other keys for sums")

    def contribute(self, change: "torch.Tensor", session: Session, norm: float, seed: int) -> bytes:
        """Return an update, sealed to the members.

        Args:
            change: (n,) what training changed.
            session: The sum that it is for.
            norm: Norm to which it is clipped, unless it is a vote.
            seed: Seed of the rounding at random.

        Raises:
            InputError: If the person is not enrolled with these keys.
        """
        return contribute(session.numbers.encode(change, norm, seed), session, self.name, self._keys)

    def answer(self, session: Session, names: Sequence[str], envelopes: Sequence[bytes]) -> MemberAnswer:
        """Tell the sum of what contributors sealed to this member, or which of it cannot be opened.

        Args:
            session: The sum.
            names: Names of the contributors.
            envelopes: What each of them sealed, as `sealing.envelopes` makes it.

        Raises:
            AlreadyAnswered: If it told its sum of this round before, over anything but these envelopes.
            TooFewApart: If this sum, taken from earlier ones, would tell of too few people.
            InputError: If it is no member, or the list is too short or names a client twice.
        """
        session.place(self.name)
        if len(set(names)) < len(names) or len(names) != len(envelopes):
            raise InputError("a list of contributors that names one twice, or without a share")
        if len(names) < session.least:
            raise InputError(
                f"a sum of {count_of(len(names), 'client')} is not told, of {session.least} at least"
            )
        request = _digest(session, names, envelopes)
        self._check_unanswered(session, request)
        if not self.told_before(session, names, envelopes):
            self._check_apart(names)
        bad = []
        total = np.zeros(session.columns, np.int64)
        for name, envelope in zip(names, envelopes, strict=True):
            try:
                total += open_share(envelope, session, name, self.name, self._keys)
            except BadShare:
                bad.append(name)
        if bad:
            return MemberAnswer(b"", tuple(bad))
        self._keep_list(names)
        self._mark(session, request)
        field = session.numbers.field
        return MemberAnswer(field.to_bytes(total % field.prime))

    def told_before(self, session: Session, names: Sequence[str], envelopes: Sequence[bytes]) -> bool:
        """Return whether it told its sum for the very same request.

        Args:
            session: The sum.
            names: Names of the contributors.
            envelopes: What each of them sealed.
        """
        marker = self._marker(session)
        return marker.exists() and marker.read_bytes() == _digest(session, names, envelopes)

    def _marker(self, session: Session) -> Path:
        return self._answered / f"{session.run}-{session.round}"

    def _check_unanswered(self, session: Session, request: bytes) -> None:
        """Raise AlreadyAnswered where another request of this round was answered."""
        try:
            answered = self._marker(session).read_bytes()
        except FileNotFoundError:
            return
        if answered != request:
            raise AlreadyAnswered(f"round {session.round} is answered already, over other shares")

    def _told_lists(self) -> list[list[str]]:
        return read_form(self._lists, list[list[str]]) if self._lists.exists() else []

    def _check_apart(self, names: Sequence[str]) -> None:
        """Raise TooFewApart where a sum over these people, taken from earlier ones, tells of too few."""
        if not keeps_together(self._told_lists(), names, self._together):
            raise TooFewApart(
                f"this sum, taken from earlier ones, would tell of fewer than {self._together} people"
            )

    def _keep_list(self, names: Sequence[str]) -> None:
        """Keep on disk over whom a sum is told, before it is."""
        told, new = self._told_lists(), sorted(names)
        if new not in told:
            write_json(self._lists, [*told, new])

    def _mark(self, session: Session, request: bytes) -> None:
        """Keep on disk which request of the round is answered; only one can be."""
        self._answered.mkdir(parents=True, exist_ok=True)
        marker = self._marker(session)
        try:
            create_whole(marker, request)
        except FileExistsError:
            self._check_unanswered(session, request)


def _digest(session: Session, names: Sequence[str], envelopes: Sequence[bytes]) -> bytes:
    """Return the SHA-256 of a request to a member, 32 bytes."""
    sealed = [hashlib.sha256(envelope).hexdigest() for envelope in envelopes]
    return hashlib.sha256(session.digest + json.dumps([list(names), sealed]).encode()).digest()


def make_keys(folder: Path) -> SumKeys:
    """Return the keys of a person's folder, drawn where there are none.

    Args:
        folder: The person's own folder.

    Raises:
        InputError: If they are broken.
    """
    path = folder / KEYS
    if not path.exists():
        write_atomic(path, SumKeys.new().to_bytes())
    return _read_keys(path)


def _read_keys(path: Path) -> SumKeys:
    return read_parsed(path, SumKeys.from_bytes)
