"""Rounds in a frozen basis of which the cloud sees the sum alone.

    theta <- theta + C sum_i d_i / m        d_i: clipped to the norm C = clipping-norm, in whole steps
    theta <- theta + s sum_i sign_i / m     votes; s is the public vote-step, as scales would tell of clients

m is the number of clients in the sum, each with the same weight; under a promise of privacy noise is added to
the sum and m is fixed, as in `cloud.privacy.mechanism`.
"""

from collections.abc import Callable, Sequence

from flwr.app import RecordDict

from fedperfit.cloud.clients.sealed_gate import SealedGate, SealedUpdate
from fedperfit.cloud.privacy.rounds import PrivateRounds
from fedperfit.cloud.rounds.coordinate_form import CoordinateBroadcasts
from fedperfit.cloud.rounds.forms import Config
from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.cloud.rounds.sums import SecureSums
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.messages.sums import broadcast_digest
from fedperfit.protocol.shift.basis import Basis, Coordinates


class SealedForm(CoordinateBroadcasts[SealedUpdate]):
    """Coordinates in one basis, whose updates are sealed to a committee."""

    def __init__(
        self,
        basis: Basis,
        settings: FederationSettings,
        sums: SecureSums,
        privacy: PrivateRounds | None = None,
    ) -> None:
        """Set up the form.

        Args:
            basis: The frozen R and P of the run.
            settings: Settings of the rounds; their dtype is the updates' codec.
            sums: Sums of the training.
            privacy: Promise under which sums are noised; None for none.
        """
        super().__init__(basis, settings)
        self.sums, self.privacy = sums, privacy

    def requests(
        self, clients: Sequence[str], state: Coordinates, number: int, config: Config, holders: set[str]
    ) -> dict[str, RecordDict]:
        """Make one request for every client, with the terms of the sum."""
        terms = self.sums.terms_of(number).to_config()
        return super().requests(clients, state, number, config | terms, holders)

    def announce(self, state: Coordinates, number: int, training: TrainingSettings) -> None:
        """Have a round's sum be of updates of this broadcast under these settings."""
        self.sums.announce(number, broadcast_digest(self.packed(state, number), training))

    def gate(self, state: Coordinates, number: int) -> SealedGate:
        """Make a gate for updates that are sealed for this round."""
        return SealedGate(self.sums.session(number), self._agreement(number))

    def keeper(self) -> Callable[[SealedUpdate], SealedUpdate]:
        """Keep updates as they are, for a round that was killed is not asked again."""
        return lambda update: update

    def combine(self, admitted: Sequence[SealedUpdate], broadcast: Coordinates, number: int) -> Coordinates:
        """Add the mean of the sum, noised under a promise."""
        total, addends = self.sums.total(number, admitted)
        if self.privacy is None:
            change = self.sums.size * total / addends
        else:
            change = self.privacy.change_of_sum(number, total)
        return Coordinates.of(self.basis, (broadcast.numbers.double() + change).float())
