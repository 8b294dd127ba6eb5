"""Phases of one simulated run, from the first round to the last figure, over a Flower grid."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from flwr.serverapp import Grid

from fedperfit.cloud.job.events import Progress
from fedperfit.cloud.job.job import Job
from fedperfit.cloud.rounds.checkpoint import Checkpoints
from fedperfit.protocol.messages.settings import Stage
from fedperfit.protocol.people.people import People
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.files import write_atomic, write_json
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.protocol.trust.signing import SigningKey, read_signing_key
from fedperfit.simulation.basis.prepared import prepare_public
from fedperfit.simulation.client_app import CLIENTS, read_enrolled
from fedperfit.simulation.cohorts.devices import on_devices
from fedperfit.simulation.run.clients import NEW, OTHERS, TARGETS, prepare_clients
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.stored_models import items_of

CONNECT_SECONDS = 120.0
"""Seconds within which all clients have to be there."""
_LOOKS = 16
"""Times that the collective shift is scored while simulated time passes, at most, beside its start."""


class Study(Job):
    """The main job of one run folder, with the cold-start studies of a simulation."""

    def __init__(self, grid: Grid, settings: RunSettings, folder: Path, progress: Progress) -> None:
        """Prepare the job.

        Args:
            grid: Connection to the clients.
            settings: Settings of the run.
            folder: Folder of the run.
            progress: Called with the name and the figures of every event.
        """
        grid, clock = on_devices(
            grid, median=settings.device_seconds, spread=settings.device_spread, seed=settings.seed
        )
        super().__init__(grid, settings, folder, progress, clock=clock)
        self.settings = settings

    def run(self) -> None:
        """Train, release, personalize, evaluate, and study cold start."""
        settings = self.settings
        groups = prepare_clients(settings, self.folder)
        write_json(self.folder / "card.json", asdict(self.card))
        others, targets, new = (
            [client for client, about in groups.items() if about["group"] == group]
            for group in (OTHERS, TARGETS, NEW)
        )
        self.connect(len(groups), CONNECT_SECONDS)
        self.choose(others)
        self.directory = read_enrolled(self.folder / CLIENTS)
        prepare_public(
            self.folder,
            self.chosen,
            settings.data,
            lambda: items_of(self.folder / CLIENTS).base,
            lambda fitted, people: self.progress("public-people", {"fitted": fitted, "people": people}),
            lambda done, steps: self.progress("basis", {"done": done, "steps": steps}),
        )
        federation, shift = self.train("train", others)
        write_json(self.folder / "rounds.json", [report.to_json() for report in federation.history])
        people = self.people("train")
        release = self._release(shift, self.directions("directions", others), people)
        packed = self.packed(shift)
        fitted_on = release if people is not None else packed
        self.personalize("personalize", targets, fitted_on)
        for stage in self.stages:
            payload = release if stage is Stage.DIRECTIONS else packed
            self.evaluate(f"evaluate-{stage}", targets, payload, stage)
        newcomers = new or targets
        if settings.device_seconds:
            self._time_study(targets, federation.checkpoints)
        self._history_study(newcomers, fitted_on)
        self._collective_study(others, newcomers, shift, as_before=fitted_on is packed)

    def _release(self, shift: Shift, directions: Directions | None, people: People | None) -> bytes:
        """Write release.safetensors once, signed with a key of the run's own, and return its bytes."""
        path, key_path = self.folder / FILE_NAME, self.folder / "signing.pem"
        if not path.exists():
            if not key_path.exists():
                SigningKey().write(key_path)
            key = read_signing_key(key_path)
            release = Release.first(
                *(shift, self.trained_header, key),
                epsilon=self.epsilon,
                delta=self.delta,
                directions=directions,
                people=people,
            )
            write_atomic(path, release.to_bytes())
        read_release(path)  # which names a broken one
        return path.read_bytes()

    def _history_study(self, clients: Sequence[str], payload: bytes) -> None:
        """Score the newcomers with their latest 0, 1, 2, … items."""
        for length in self.settings.history_lengths:
            slot = f"history-{length}"
            if length:
                self.personalize(f"{slot}-fit", clients, payload, slot=slot, items=length)
            self.evaluate(slot, clients, payload, Stage.PERSONAL if length else Stage.COLLECTIVE, slot=slot)

    def _time_study(self, clients: Sequence[str], checkpoints: Checkpoints) -> None:
        """Score clients with the collective shift as it was after rounds, from none to all of them."""
        last = self.settings.rounds
        for number in sorted({round(last * look / _LOOKS) for look in range(_LOOKS + 1)}):
            packed = pack(checkpoints.read(number).shift, replace(self.header, round=number))
            self.evaluate(f"time-{number}", clients, packed, Stage.COLLECTIVE)

    def _collective_study(
        self, others: Sequence[str], clients: Sequence[str], all_others: Shift, as_before: bool
    ) -> None:
        """Score the newcomers with collective shifts trained by the first 10, 20, … and by all others.

        Of the shift of all others the history study has the scores, where it has the same lengths.

        Args:
            others: Names of the clients that train.
            clients: Names of the newcomers.
            all_others: The shift of all others.
            as_before: Whether the history study fitted under that shift alone, without a prior, too.
        """
        items = self.settings.collective_study_items
        sizes = {size for size in self.settings.collective_sizes if size < len(others)}
        for size in sorted(sizes | {len(others)}) if self.settings.collective_sizes else []:
            slot = f"collective-{size}"
            shift = all_others
            if size < len(others):
                _, shift = self.train(f"{slot}-train", others[:size])
            else:
                self._take_over(slot, "history-0")
                if as_before:
                    self._take_over(f"{slot}-fit", f"history-{items}-fit")
                    self._take_over(f"{slot}-personal", f"history-{items}")
            packed = self.packed(shift)
            self.evaluate(slot, clients, packed, Stage.COLLECTIVE, slot=slot)
            self.personalize(f"{slot}-fit", clients, packed, slot=slot, items=items)
            self.evaluate(f"{slot}-personal", clients, packed, Stage.PERSONAL, slot=slot)

    def _take_over(self, phase: str, earlier: str) -> None:
        """Make the result of an earlier phase, where there is one, that of a phase that asks the same."""
        found, path = (self.folder / "results" / f"{name}.json" for name in (earlier, phase))
        if found.exists() and not path.exists():
            write_atomic(path, found.read_bytes())
