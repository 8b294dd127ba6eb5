"""A federation and the phases after it in one run folder; resumable at every phase.

Each phase leaves `results/<phase>.json` and `ledger/<phase>.jsonl`; a phase whose result is there is
not run again, and training continues from its last round's checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fedperfit.cloud.clients.clock import MACHINE, Clock
from fedperfit.cloud.clients.exchange import Exchange
from fedperfit.cloud.clients.roster import roster
from fedperfit.cloud.job.basis import gather_basis, run_basis
from fedperfit.cloud.job.choice import run_choice
from fedperfit.cloud.job.directions import GroupDirections
from fedperfit.cloud.job.events import Progress
from fedperfit.cloud.job.federation_builder import CHECKPOINTS, FederationBuilder
from fedperfit.cloud.job.layer_gradients import PHASE as LAYER_GRADIENTS
from fedperfit.cloud.job.layer_gradients import KnownLayerGradients, gather_layer_gradients
from fedperfit.cloud.job.people import public_people, released_people
from fedperfit.cloud.job.settings import JobSettings
from fedperfit.cloud.privacy.ledger import PrivacyLedger
from fedperfit.cloud.rounds.federation import Federation
from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.cloud.rounds.scatter import UpdateScatter
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.messages.settings import FULL_SLOT, Stage
from fedperfit.protocol.model.base_model import BaseModelCard, read_card
from fedperfit.protocol.people.people import People
from fedperfit.protocol.people.scatter import Scatter
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.selection import STEP, LayerGradient, warm_start
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import TooFewClients
from fedperfit.protocol.system.files import read_parsed, write_atomic, write_json
from fedperfit.protocol.trust.release_file import read_release


class Job:
    """The phases of one run folder over a Flower grid."""

    def __init__(
        self,
        grid: Grid,
        settings: JobSettings,
        folder: Path,
        progress: Progress,
        privacy: Path | None = None,
        clock: Clock = MACHINE,
        card: BaseModelCard | None = None,
    ) -> None:
        """Set up a job.

        Args:
            grid: Flower's grid.
            settings: Settings of the run.
            folder: The run folder.
            progress: Called with the events of the run.
            privacy: Folder of the ledger of what all runs of the federation tell; None takes the run's.
            clock: Clock by which rounds wait.
            card: The base model; None reads it from the model's files.

        Raises:
            InputError: If the base model cannot be described, or the settings do not fit it.
        """
        self.grid, self.folder, self.progress, self._clock = grid, folder, progress, clock
        self.card = card or read_card(settings.base_model)
        settings.check(self.card)
        self._job = settings
        self._known = KnownLayerGradients()
        self._holders: set[str] = set()
        self._privacy_ledger = PrivacyLedger(privacy or folder)
        self.directory: Directory | None = None
        """Keys of all that are enrolled for secure sums; None where nobody is."""
        self.release = ""
        """Digest of the release that names them; empty where none does."""

    def connect(self, expected: int, seconds: float, enrolled: Mapping[int, str] | None = None) -> list[str]:
        """Wait for clients and ask them for their status (see `roster`).

        Args:
            expected: Number of clients to wait for.
            seconds: Longest wait.
            enrolled: The only name each node may have; None lets every node name itself.

        Returns:
            Names of the clients that can take part, sorted.

        Raises:
            TooFewClients: If too few clients connect or none can take part.
        """
        ledger = self._fresh_ledger("status")
        connected = roster(
            self.grid,
            expected=expected,
            timeout=seconds,
            fingerprint=self.card.fingerprint,
            task=self._job.task_id,
            ledger=ledger,
            enrolled=enrolled,
        )
        self.names = connected.names
        self.progress("connected", {"clients": len(self.names)})
        return list(connected.statuses)

    def choose(self, clients: Sequence[str]) -> None:
        """Choose the settings that are `auto`, once, from these clients' layer gradients.

        Args:
            clients: Names of the clients.

        Raises:
            TooFewClients: If too few clients send theirs.
        """
        if not self._job.open:
            return
        choice = run_choice(self._job, self.card, self.folder, lambda: self._layer_gradients(clients))
        self._job = self._job.settled(choice["settings"])
        told = {"settings": choice["settings"], "clients": choice["clients"], "seconds": choice["seconds"]}
        self.progress("chosen", told)

    def start_from(self, path: Path) -> Shift | None:
        """Return the shift of a release that the first round can begin with.

        Args:
            path: File of the release.

        Returns:
            None if there is no such file, or its shift is of another shape than this job's or in another
            basis; the event says so.

        Raises:
            InputError: Naming the file, if it is broken.
        """
        if not path.exists():
            return None
        release, header = read_release(path), self.header
        same = (release.header.task, release.header.fingerprint) == (header.task, header.fingerprint)
        same &= release.header.shape == header.shape
        basis = run_basis(self._job, self.card, self.folder)
        same &= basis is None or Coordinates.of_shift(basis, release.shift) is not None
        self.progress("start-from", {"version": release.version, "same-shape": same})
        return release.shift if same else None

    def train(
        self, phase: str, clients: Sequence[str], beginning: Shift | None = None
    ) -> tuple[Federation, Shift]:
        """Train the collective shift over clients, continuing where a killed run stopped.

        Args:
            phase: Name of the phase, and of its folder of checkpoints.
            clients: Names of the clients.
            beginning: Shift that the first round broadcasts; None makes one.

        Returns:
            The federation, for its round reports, and the collective shift.

        Raises:
            TooFewClients: If too few clients can take part, or no round had an update.
            InputError: If the checkpoints belong to a run with other settings.
        """
        gather_basis(self._job, self.card, self.folder, lambda: self._layer_gradients(clients))
        federation = self._federation(phase, self._ledger(phase))

        def on_round(report: RoundReport) -> None:
            values = {
                "phase": phase,
                "round": report.round,
                "rounds": self._job.rounds,
                "admitted": len(report.admitted),
                "dropped": len(report.dropped),
                "kinds": report.dropped_kinds(),
                "loss": report.loss,
                "down": report.bytes_down,
                "up": report.bytes_up,
            }
            self.progress("round", values)

        self.progress("phase", {"phase": phase, "clients": len(clients)})
        shift = federation.train(clients, on_round, self._start(clients, beginning))
        self._holders |= {client for report in federation.history for client in report.admitted}
        if all(report.skipped for report in federation.history):
            raise TooFewClients(
                f"{phase}: no round had the updates it needs; the log says why clients were dropped"
            )
        return federation, shift

    def people(self, phase: str) -> People | None:
        """Make the basis of personal shifts and the prior over people that a release carries.

        Args:
            phase: Name of the phase that trained the collective shift.

        Returns:
            Both, the basis alone, or None if the settings ask for neither.

        Raises:
            InputError: If nothing tells how people differ.
        """
        if self._job.personal_basis == "none":
            return None
        basis = run_basis(self._job, self.card, self.folder)
        assert basis is not None
        return released_people(basis, self._job, self._scatter(phase, basis))

    def directions(self, phase: str, clients: Sequence[str]) -> Directions | None:
        """Find the group's directions over clients, once.

        Args:
            phase: Name of the phase, and of the file of its result.
            clients: Names of the clients.

        Returns:
            The directions, or None if the settings ask for none.

        Raises:
            InputError: If too few clients are left.
        """
        if not self._job.directions:
            return None
        path = self.folder / f"{phase}.safetensors"
        if not path.exists():
            self.progress("phase", {"phase": phase, "clients": len(clients)})
            search = GroupDirections(
                Exchange(self.grid, self._fresh_ledger(phase), self.names, self._on_reply),
                self._job.pairs(),
                layers=self.card.layers,
                hidden_size=self.card.hidden_size,
                deadline=self._job.deadline_seconds,
                phase=phase,
            )
            directions = search.find(clients, edited=self._job.edited_layers, seed=self._job.seed)
            write_atomic(path, directions.to_bytes())
        return read_parsed(path, Directions.from_bytes)

    def personalize(
        self,
        phase: str,
        clients: Sequence[str],
        payload: bytes,
        *,
        slot: str = FULL_SLOT,
        items: int | None = None,
    ) -> None:
        """Have clients fit personal shifts, once.

        Args:
            phase: Name of the phase.
            clients: Names of the clients.
            payload: The packed collective shift, or the release file that holds it if edges require one.
            slot: Name under which clients store the shift.
            items: Number of latest history items to train on; None takes the settings'.
        """
        training = self._job.personal_training(max_items=items)
        personal = self._job.personal(slot)
        self._once(phase, clients, lambda f: f.personalize(clients, payload, personal, training, phase))

    def evaluate(
        self, phase: str, clients: Sequence[str], payload: bytes, stage: Stage, *, slot: str = FULL_SLOT
    ) -> None:
        """Have clients answer their questions at one stage, once.

        Args:
            phase: Name of the phase.
            clients: Names of the clients.
            payload: The packed collective shift, or the release file that holds it if edges require one.
            stage: Stage that answers.
            slot: Name of the personal shift that answers; ignored for other stages.
        """
        evaluation = self._job.evaluation(stage, slot)
        self._once(phase, clients, lambda f: f.evaluate(clients, payload, evaluation, phase))

    @property
    def epsilon(self) -> float | None:
        """What all rounds of the federation so far tell, at the settings' delta; None without a promise."""
        return self._privacy_ledger.epsilon(self._job.target_delta) if self._job.private else None

    @property
    def delta(self) -> float | None:
        """Delta that `epsilon` holds at."""
        return self._job.target_delta if self._job.private else None

    @property
    def chosen(self) -> JobSettings:
        """The settings, with what `choose` chose for those that are `auto`."""
        return self._job

    @property
    def stages(self) -> list[Stage]:
        """Stages the job can evaluate."""
        return [stage for stage in Stage if stage is not Stage.DIRECTIONS or self._job.directions]

    def packed(self, shift: Shift) -> bytes:
        """Pack a trained collective shift as it travels."""
        return pack(shift, self.trained_header)

    @property
    def header(self) -> ShiftHeader:
        """Header of the collective shift before any round.

        Raises:
            InputError: If a setting is `auto` and `choose` has not been called.
        """
        return ShiftHeader(
            shape=self._job.shape(self.card),
            task=self._job.task_id,
            fingerprint=self.card.fingerprint,
            round=0,
            dtype=self._job.release_dtype,
        )

    @property
    def trained_header(self) -> ShiftHeader:
        """Header of the collective shift after all rounds."""
        return replace(self.header, round=self._job.rounds)

    def _scatter(self, phase: str, basis: Basis) -> Scatter | None:
        if not self._job.people_prior:
            return None
        if self._job.prior_source == "public":
            return public_people(basis, self._job, self.folder)
        return UpdateScatter(self.folder / CHECKPOINTS / phase, basis).total(self._job.rounds)

    def _start(self, clients: Sequence[str], beginning: Shift | None) -> Callable[[], Shift] | None:
        if beginning is not None:
            return lambda: beginning
        return (lambda: self._warm(clients)) if self._job.warm_start else None

    def _warm(self, clients: Sequence[str]) -> Shift:
        return warm_start(self._layer_gradients(clients), self.header.shape, STEP, self._job.seed)

    def _layer_gradients(self, clients: Sequence[str]) -> list[LayerGradient]:
        return self._known.of(clients, self._ask_layer_gradients)

    def _ask_layer_gradients(self, clients: Sequence[str]) -> dict[str, LayerGradient]:
        self.progress("phase", {"phase": LAYER_GRADIENTS, "clients": len(clients)})
        return gather_layer_gradients(
            Exchange(self.grid, self._ledger(LAYER_GRADIENTS), self.names, self._on_reply),
            self._job.layer_gradients(),
            self.card,
            clients,
            max_items=self._job.federation().max_items,
            deadline=self._job.deadline_seconds,
        )

    def _once(self, phase: str, clients: Sequence[str], ask: Callable[[Federation], dict[str, Any]]) -> None:
        path = self.folder / "results" / f"{phase}.json"
        if path.exists():
            return
        self.progress("phase", {"phase": phase, "clients": len(clients)})
        counts = ask(self._federation(phase, self._fresh_ledger(phase)))
        if clients and not counts:
            raise TooFewClients(f"{phase}: no client answered; the log says why")
        result = {client: {"items": c.items, "metrics": c.metrics} for client, c in counts.items()}
        write_json(path, result)
        self.progress("result", {"phase": phase, "clients": len(result)})

    def _federation(self, phase: str, ledger: Ledger) -> Federation:
        build = FederationBuilder(self._job, self.card, self.folder, self._privacy_ledger)
        return build.federation(
            phase,
            Exchange(self.grid, ledger, self.names, self._on_reply, self._clock),
            ledger,
            header=self.header,
            holders=sorted(self._holders),
            directory=self.directory,
            release=self.release,
        )

    def _on_reply(self, phase: str, replies: int, clients: int) -> None:
        self.progress("reply", {"phase": phase, "replies": replies, "clients": clients})

    def _ledger(self, phase: str) -> Ledger:
        return Ledger(self.folder / "ledger" / f"{phase}.jsonl")

    def _fresh_ledger(self, phase: str) -> Ledger:
        ledger = self._ledger(phase)
        ledger.path.unlink(missing_ok=True)
        return ledger
