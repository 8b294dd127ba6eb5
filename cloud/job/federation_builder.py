"""What a phase's rounds are made of, by the settings of the job: basis, checkpoints, noise, secure sums."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedperfit.cloud.clients.exchange import Exchange
from fedperfit.cloud.job.basis import run_basis
from fedperfit.cloud.job.people import check_numbers, public_people
from fedperfit.cloud.job.settings import JobSettings
from fedperfit.cloud.privacy.ledger import PrivacyLedger
from fedperfit.cloud.privacy.rounds import PrivateRounds
from fedperfit.cloud.rounds.checkpoint import Checkpoints
from fedperfit.cloud.rounds.federation import Federation
from fedperfit.cloud.rounds.scatter import UpdateScatter
from fedperfit.cloud.rounds.sums import SecureSums
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.system.errors import InputError

CHECKPOINTS = "checkpoints"
"""Folder of all phases' checkpoints in a run folder."""


@dataclass(frozen=True)
class FederationBuilder:
    """Builds the federations of a job's phases."""

    settings: JobSettings
    """Settings of the run, with nothing left to be chosen."""
    card: BaseModelCard
    """Description of the frozen base model."""
    folder: Path
    """Folder of the run, which checkpoints lie in."""
    privacy_ledger: PrivacyLedger
    """What all runs of the federation tell of any one client."""

    def federation(
        self,
        phase: str,
        exchange: Exchange,
        ledger: Ledger,
        *,
        header: ShiftHeader,
        holders: Sequence[str],
        directory: Directory | None,
        release: str,
    ) -> Federation:
        """Build the federation of one phase.

        Args:
            phase: Name of the phase.
            exchange: Exchange with the connected clients.
            ledger: What travels is written there.
            header: Header of the collective shift before any round.
            holders: Names of clients that have the basis of earlier phases, sorted.
            directory: Keys of all that are enrolled for secure sums; None where nobody is.
            release: Digest of the release in force, from which committees are drawn.

        Raises:
            InputError: If secure sums are asked for and nobody is enrolled, the basis has too many columns
                for a prior over people, or the file of public people is missing or malformed.
        """
        basis = run_basis(self.settings, self.card, self.folder)
        if basis is not None and self.settings.people_prior:
            check_numbers(basis.numbers)
            if self.settings.prior_source == "public":
                public_people(basis, self.settings, self.folder)
        place = self.folder / CHECKPOINTS / phase
        return Federation(
            exchange=exchange,
            checkpoints=Checkpoints(place),
            ledger=ledger,
            header=header,
            settings=self.settings.federation(),
            training=self.settings.collective_training(),
            basis=basis,
            holders=holders,
            privacy=PrivateRounds(self.settings, self.privacy_ledger, place)
            if self.settings.private
            else None,
            scatter=UpdateScatter(place, basis) if basis and self.settings.compares_updates else None,
            sums=self._sums(exchange, place, directory, release) if self.settings.secure else None,
        )

    def _sums(self, exchange: Exchange, place: Path, directory: Directory | None, release: str) -> SecureSums:
        if directory is None:
            raise InputError("secure-aggregation=committee: nobody is enrolled for sums")
        return SecureSums(
            self.settings,
            directory,
            exchange,
            place,
            votes=self.settings.transport_dtype == "sign",
            privacy=self.settings,
            deadline=self.settings.deadline_seconds,
            release=release,
            lists=self.privacy_ledger.path.parent,
        )
