"""The cloud's part in secure sums: it passes sealed shares on, asks the members, and puts the sum together.

What contributors sealed is on disk before any member is asked, and a sum before anything is made of it. A run
that goes on after a kill asks the members for the very same sum, which they tell again: no round is lost, and
there is no second list of clients. Once the round's checkpoint is written, nothing sealed is kept, for who
steals members' keys later could open it.
"""

import secrets
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict
from typing_extensions import TypedDict

from fedperfit.cloud.clients.exchange import Exchange, logger
from fedperfit.cloud.clients.replies import Rejected
from fedperfit.cloud.clients.sealed_gate import BadShares, SealedUpdate, admit_sum
from fedperfit.cloud.privacy.settings import PrivacySettings
from fedperfit.cloud.privacy.told_lists import ToldLists
from fedperfit.cloud.rounds.collection import Collection, SealedRound, sealed_from_json, sealed_to_json
from fedperfit.cloud.rounds.committee_settings import CommitteeSettings
from fedperfit.cloud.rounds.robust import TooFew
from fedperfit.protocol.messages.keys import (
    CLIENTS_KEY,
    ENVELOPES_KEY,
    ENVELOPES_RECORD,
    ROUND_KEY,
    SETTINGS_RECORD,
    SUM_TYPE,
)
from fedperfit.protocol.messages.ledger import Entry
from fedperfit.protocol.messages.settings import CoordinateSettings
from fedperfit.protocol.messages.sums import SumSettings, session_of
from fedperfit.protocol.secure_sums.cohorts import fewest_together
from fedperfit.protocol.secure_sums.field import Elements
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.secure_sums.session import Session, draw_committee
from fedperfit.protocol.secure_sums.sharing import reconstruct
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.system.errors import InputError, TooFewClients
from fedperfit.protocol.system.files import write_json

_APART = "fewest-apart"
_UNANNOUNCED = "0" * 64
"""Digest in the terms of all rounds, in place of each round's own."""
_TIMES = 2
"""Times that members are asked for a sum while too few have told it."""
RUN = "sums.json"
"""File beside a training's checkpoints: the random name of its sums, and the release that they are under."""


class _Named(TypedDict):
    """The random name of a training's sums, and the release that they are under."""

    run: str
    release: NotRequired[str]


class _Told(TypedDict):
    """The sum of a round that members told."""

    addends: int
    total: list[int]
    sent: NotRequired[list[Entry]]


class SecureSums:
    """The sums of one training."""

    def __init__(
        self,
        settings: CommitteeSettings,
        directory: Directory,
        exchange: Exchange,
        folder: Path,
        *,
        votes: bool,
        privacy: PrivacySettings,
        deadline: float,
        release: str = "",
        lists: Path | None = None,
    ) -> None:
        """Set up the sums.

        Args:
            settings: Settings of the committee.
            directory: All that are enrolled, with their keys.
            exchange: Exchange with the connected clients.
            folder: Folder of the checkpoints, where sums are kept.
            votes: Whether updates are votes.
            privacy: Settings that say what a vote is worth, and to what norm other updates are clipped.
            deadline: Longest wait for the members, in seconds.
            release: Digest of the release in force; empty before the first.
            lists: Folder in which all runs of the federation keep over whom sums were told; None for that of
                the checkpoints.
        """
        together = fewest_together(settings.fewest_apart, settings.committee_corrupt)
        self._told_lists = ToldLists(lists or folder, release, together)
        self.settings, self.directory, self.release = settings, directory, release
        self._exchange, self._folder = exchange, folder
        self._norm, self._deadline = privacy.clipping_norm, deadline
        self.size = privacy.vote_step if votes else privacy.clipping_norm
        """Step of a unanimous vote, or the clipping norm of other updates."""
        self._broadcasts: dict[int, str] = {}
        self.sent: list[Entry] = []
        """Ledger entries of what the members of the last round were asked."""

    def begin(self, basis: Basis, codec: str, clients: int) -> None:
        """Fix the terms of all rounds.

        Args:
            basis: Basis of the updates.
            codec: Their encoding.
            clients: Clients of the federation.

        Raises:
            TooFewClients: If there are fewer than a sum needs.
            InputError: If too few are enrolled, or the codec is none of fixed points.
        """
        least = self.settings.fewest_contributors
        if clients < least:
            raise TooFewClients(f"fewest-contributors={least}: only {clients} clients can contribute")
        path, shape = self._folder / RUN, self.settings.committee
        self.wanted = CoordinateSettings.of(basis.digest, codec)
        known = read_form(path, _Named) if path.exists() else None
        going_on = known is not None and known.get("release", "") == self.release
        self.terms = SumSettings(
            sum_run=known["run"] if known is not None and going_on else self._name(),
            sum_broadcast=_UNANNOUNCED,
            sum_numbers=basis.numbers,
            sum_addends=clients,
            clipping_norm=self._norm,
            committee_size=shape.size,
            committee_corrupt=shape.corrupt,
            committee_threshold=shape.threshold,
            fewest_contributors=least,
        )
        draw_committee(self.directory, self.release, shape.size)

    def renew(self) -> None:
        """Give the training another name, since its rounds begin again; none had a sum of use."""
        self.forget()
        for path in self._folder.glob("sum-*.json"):
            path.unlink()
        self.terms = self.terms.replace(sum_run=self._name())

    @property
    def described(self) -> list[Any]:
        """What of the sums decides the result of the rounds, as JSON values.

        Who is left out of a sum is none of it, no more than who is lost.
        """
        own = CommitteeSettings.own(self.settings.to_flat())
        return [{key: value for key, value in own.items() if key != _APART}, self.size]

    def announce(self, number: int, broadcast: str) -> None:
        """Fix what the updates of a round are of, before anything is asked.

        Args:
            number: Round, counted from 1.
            broadcast: Digest of the broadcast and the training settings (see `broadcast_digest`).
        """
        self._broadcasts[number] = broadcast

    def terms_of(self, number: int) -> SumSettings:
        """Return the terms of a round, counted from 1, which was announced."""
        return self.terms.replace(sum_broadcast=self._broadcasts[number])

    def session(self, number: int) -> Session:
        """Return the session of a round, counted from 1."""
        return session_of(self.terms_of(number), self.wanted, number, self.release, self.directory)

    def keep(self, number: int, collection: Collection[SealedUpdate]) -> None:
        """Keep what a round's contributors sealed, before members are asked, without those who must wait.

        Args:
            number: Round, counted from 1.
            collection: What they sent; too few of them are not kept, and asked again after a kill.
        """
        session = self.session(number)
        chosen = self._told_lists.claim(collection.updates, session.least)
        for client in set(collection.updates) - set(chosen):
            del collection.updates[client]
            collection.dropped[client] = f"{_APART}={self.settings.fewest_apart}: the sum would tell it apart"
        if len(collection.updates) >= session.least:
            kept = sealed_to_json(collection) | {"session": session.digest.hex()}
            write_json(self._folder / f"sealed-{number:04d}.json", kept)

    def kept(self, number: int) -> Collection[SealedUpdate] | None:
        """Return what a killed run kept of a round; None where it is for another session, or nothing.

        Args:
            number: Round, counted from 1.
        """
        path = self._folder / f"sealed-{number:04d}.json"
        values = read_form(path, SealedRound) if path.exists() else None
        if values is None or values["session"] != self.session(number).digest.hex():
            return None
        logger.info("round %d: going on with what contributors sealed", number)
        return sealed_from_json(values)

    def forget(self) -> None:
        """Remove everything sealed, once a round is over."""
        for path in self._folder.glob("sealed-*.json"):
            path.unlink()

    def total(self, number: int, updates: Sequence[SealedUpdate]) -> tuple[torch.Tensor, int]:
        """Return the sum of a round's updates, in clipping norms or votes, and how many there are.

        Args:
            number: Round, counted from 1.
            updates: What contributors sealed.

        Returns:
            (n,) float64, and the number of addends.

        Raises:
            TooFew: If there are too few contributors or members, or their sums are not to be used.
        """
        session, path = self.session(number), self._folder / f"sum-{number:04d}.json"
        self.sent = []
        if path.exists():
            self.sent = read_form(path, _Told).get("sent", [])
            self._exchange.ledger.add(self.sent)
        else:
            if len(updates) < session.least:
                raise TooFew(f"a sum needs {session.least} clients")
            total = self._told(session, updates)
            sent = [asdict(entry) for entry in self.sent]
            write_json(path, {"addends": len(updates), "total": total.tolist(), "sent": sent})
        kept = read_form(path, _Told)
        try:
            whole = np.array(kept["total"], np.int64)
            return session.numbers.decode(whole, kept["addends"]), kept["addends"]
        except InputError as error:
            raise TooFew(str(error)) from None

    def _told(self, session: Session, updates: Sequence[SealedUpdate]) -> Elements:
        answers = self._answers(session, updates)
        try:
            total, liars = reconstruct(answers, session.numbers.numbers, session.shape, session.numbers.field)
        except InputError as error:
            raise TooFew(str(error)) from None
        for liar in liars:
            name = session.members[liar]
            logger.warning("round %d: the sum of %s contradicts the others'", session.round, name)
        return total

    def _answers(self, session: Session, updates: Sequence[SealedUpdate]) -> dict[int, Elements]:
        """Ask the members that are connected; those that do not answer are logged.

        Once enough have answered, the others have as long again, for more than enough show who lies. While
        too few have, the others are asked again: one that was killed after it told its sum, or was slow,
        tells the very same one.
        """
        answers: dict[int, Elements] = {}
        why = dict.fromkeys(session.members, "not connected")
        places = {client: session.place(client) for client in self._exchange.names.values() if client in why}
        requests = {member: self._request(session, place, updates) for member, place in places.items()}
        clients = {update.client for update in updates}
        for _ in range(_TIMES):
            missing = {member: requests[member] for member in requests if places[member] not in answers}
            why |= dict.fromkeys(missing, f"no reply within {self._deadline:g} s")
            replies = self._exchange.ask(
                missing,
                SUM_TYPE,
                phase="train",
                round=session.round,
                deadline=self._deadline,
                enough=session.shape.threshold - len(answers),
            )
            with closing(replies):
                for member, reply in replies:
                    try:
                        answers[places[member]] = admit_sum(reply, session, clients)
                        del why[member]
                    except (Rejected, BadShares) as reason:
                        why[member] = str(reason)
            self.sent = self.sent + self._exchange.last
            for member in sorted(why):
                logger.warning("round %d: no sum of member %s: %s", session.round, member, why[member])
            if len(answers) >= session.shape.threshold:
                break
        return answers

    def _request(self, session: Session, place: int, updates: Sequence[SealedUpdate]) -> RecordDict:
        config = (
            self.terms_of(session.round).to_config() | self.wanted.to_config() | {ROUND_KEY: session.round}
        )
        sealed = ConfigRecord(
            {
                CLIENTS_KEY: [update.client for update in updates],
                ENVELOPES_KEY: [update.envelopes[place] for update in updates],
            }
        )
        return RecordDict({SETTINGS_RECORD: ConfigRecord({**config}), ENVELOPES_RECORD: sealed})

    def _name(self) -> str:
        """Draw a name for the training, and keep it."""
        name = secrets.token_hex(16)
        write_json(self._folder / RUN, {"run": name, "release": self.release})
        return name
