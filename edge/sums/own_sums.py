"""A deployed machine's part in secure sums, drawn from the release in force here."""

import threading
from pathlib import Path

from fedperfit.edge.consent.guard import Guard
from fedperfit.edge.releases.store import ReleaseStore
from fedperfit.edge.sums.party import KEYS, MemberAnswer, SumParty
from fedperfit.edge.sums.requests import SumRequest, tell_sum, told_before
from fedperfit.protocol.secure_sums.cohorts import fewest_together
from fedperfit.protocol.system.errors import InputError


class OwnSums:
    """Makes the party that a person is, and answers as a member; safe to use from many threads."""

    def __init__(self, folder: Path, name: str, releases: ReleaseStore, guard: Guard) -> None:
        """Read nothing until it is needed.

        Args:
            folder: The person's own folder, with the keys and the rounds that were answered.
            name: Name under which the person is enrolled.
            releases: Releases, of which the one in force names all that are enrolled for sums.
            guard: Checks what is asked of a member.
        """
        self._folder, self._name, self._releases, self._guard = folder, name, releases, guard
        self._telling = threading.Lock()

    def party(self) -> SumParty:
        """Return the person's part in sums under the release in force.

        Raises:
            InputError: If there are no keys here, or the release in force does not name them.
        """
        if not (self._folder / KEYS).exists():
            raise InputError(
                "this folder joined by a version without keys for secure sums: ask your cloud for a new "
                "invitation, and join by it in a folder of its own"
            )
        release = self._releases.current()
        directory = release.directory if release is not None else None
        if release is None or directory is None:
            raise InputError("no release in force names who is enrolled for secure sums")
        policy = self._guard.policy
        together = fewest_together(policy.fewest_apart, policy.committee_corrupt) if policy is not None else 1
        party = SumParty(self._folder, self._name, directory, release.digest, together=together)
        party.check_enrolled()
        return party

    def tell(self, request: SumRequest) -> MemberAnswer:
        """Answer as a member of the committee, one request in a round; told again, it is not counted again.

        Args:
            request: Contributors, and what they sealed.

        Raises:
            Refused: If the owner did not agree to this.
            InputError: If it is no member, has answered, or the list is not to be summed.
        """
        self._guard.sum(request.terms, request.wanted, request.round, len(request.clients))
        party = self.party()
        with self._telling:  # two at once would each be held against earlier lists alone
            if not told_before(party, request):
                self._guard.count_sum()
            return tell_sum(party, request)
