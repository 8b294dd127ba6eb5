"""One run from the first round to the last figure, over a Flower grid; resumable at every phase.

Each phase leaves `results/<phase>.json` and `ledger/<phase>.jsonl`; a phase whose result is there is
not run again, and training goes on from its last round's checkpoint.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from cloud.checkpoint import Checkpoints
from cloud.exchange import Exchange
from cloud.federation import Federation
from cloud.roster import roster
from cloud.round_report import RoundReport
from protocol.base_model import read_card
from protocol.files import write_atomic, write_json
from protocol.ledger import Ledger
from protocol.packing import ShiftHeader
from protocol.release import FILE_NAME, Release
from protocol.shift import Shift
from protocol.signing import SigningKey, read_signing_key
from simulation.clients import NEW, OTHERS, TARGETS, prepare_clients
from simulation.settings import RunSettings

CONNECT_SECONDS = 120.0
EVENTS = "events.jsonl"
"""In the run folder: one JSON object per progress event."""

Progress = Callable[[str, dict[str, Any]], None]
"""Called with an event's name and its values: what a live display shows."""


class Study:
    """The main job of one run folder."""

    def __init__(self, grid: Grid, settings: RunSettings, folder: Path, progress: Progress) -> None:
        self.grid, self.settings, self.folder, self.progress = grid, settings, folder, progress
        self.card = read_card(settings.base_model)
        self.header = ShiftHeader(
            shape=settings.shape(self.card),
            task=settings.task,
            fingerprint=self.card.fingerprint,
            round=0,
            dtype=settings.transport_dtype,
        )

    def run(self) -> None:
        """Train, release, personalize, evaluate, study cold start."""
        settings = self.settings
        groups = prepare_clients(settings, self.folder)
        write_json(self.folder / "card.json", asdict(self.card))
        others, targets, new = (
            [client for client, about in groups.items() if about["group"] == group]
            for group in (OTHERS, TARGETS, NEW)
        )
        self.names = self._connect(len(groups))
        self.progress("connected", {"clients": len(self.names)})
        federation, shift = self._train("train", others)
        write_json(self.folder / "rounds.json", [report.to_json() for report in federation.history])
        self._release(shift)
        self._personalize("personalize", targets, shift, slot="full")
        for stage in ("base", "collective", "personal"):
            self._evaluate(f"evaluate-{stage}", targets, shift, stage, slot="full")
        newcomers = new or targets
        self._history_study(newcomers, shift)
        self._collective_study(others, newcomers, shift)

    def _release(self, shift: Shift) -> None:
        """Write release.safetensors once, signed with a key of the run's own."""
        path, key_path = self.folder / FILE_NAME, self.folder / "signing.pem"
        if path.exists():
            return
        if not key_path.exists():
            SigningKey().write(key_path)
        header = replace(self.header, round=self.settings.rounds)
        write_atomic(path, Release.first(shift, header, read_signing_key(key_path)).to_bytes())

    def _history_study(self, clients: Sequence[str], shift: Shift) -> None:
        """The newcomers' score with their latest 0, 1, 2, … items."""
        for length in self.settings.history_lengths:
            slot = f"history-{length}"
            if length:
                self._personalize(f"{slot}-fit", clients, shift, slot=slot, items=length)
            self._evaluate(slot, clients, shift, "personal" if length else "collective", slot=slot)

    def _collective_study(self, others: Sequence[str], clients: Sequence[str], all_others: Shift) -> None:
        """The newcomers' score with collective shifts trained by the first 10, 20, … and by all others."""
        items = self.settings.collective_study_items
        sizes = {size for size in self.settings.collective_sizes if size < len(others)}
        for size in sorted(sizes | {len(others)}) if self.settings.collective_sizes else []:
            slot = f"collective-{size}"
            shift = all_others
            if size < len(others):
                _, shift = self._train(f"{slot}-train", others[:size])
            self._evaluate(slot, clients, shift, "collective", slot=slot)
            self._personalize(f"{slot}-fit", clients, shift, slot=slot, items=items)
            self._evaluate(f"{slot}-personal", clients, shift, "personal", slot=slot)

    def _connect(self, expected: int) -> dict[int, str]:
        ledger = self._fresh_ledger("status")
        found = roster(
            self.grid,
            expected=expected,
            timeout=CONNECT_SECONDS,
            fingerprint=self.card.fingerprint,
            task=self.settings.task,
            ledger=ledger,
        )
        return found.names

    def _train(self, phase: str, clients: Sequence[str]) -> tuple[Federation, Shift]:
        federation = self._federation(phase, self._ledger(phase))

        def on_round(report: RoundReport) -> None:
            values = {
                "phase": phase,
                "round": report.round,
                "rounds": self.settings.rounds,
                "admitted": len(report.admitted),
                "dropped": len(report.dropped),
                "loss": report.loss,
                "down": report.bytes_down,
                "up": report.bytes_up,
            }
            self.progress("round", values)

        self.progress("phase", {"phase": phase, "clients": len(clients)})
        return federation, federation.train(clients, on_round)

    def _personalize(
        self, phase: str, clients: Sequence[str], shift: Shift, *, slot: str, items: int | None = None
    ) -> None:
        training = self.settings.training(personal=True, max_items=items)
        personal = self.settings.personal(slot)
        self._once(phase, clients, lambda f: f.personalize(clients, shift, personal, training, phase))

    def _evaluate(self, phase: str, clients: Sequence[str], shift: Shift, stage: str, *, slot: str) -> None:
        evaluation = self.settings.evaluation(stage, slot)
        self._once(phase, clients, lambda f: f.evaluate(clients, shift, evaluation, phase))

    def _once(self, phase: str, clients: Sequence[str], ask: Callable[[Federation], dict[str, Any]]) -> None:
        path = self.folder / "results" / f"{phase}.json"
        if path.exists():
            return
        self.progress("phase", {"phase": phase, "clients": len(clients)})
        counts = ask(self._federation(phase, self._fresh_ledger(phase)))
        result = {client: {"items": c.items, "metrics": c.metrics} for client, c in counts.items()}
        write_json(path, result)
        self.progress("result", {"phase": phase, "clients": len(result)})

    def _federation(self, phase: str, ledger: Ledger) -> Federation:
        return Federation(
            exchange=Exchange(self.grid, ledger, self.names, self._on_reply),
            checkpoints=Checkpoints(self.folder / "checkpoints" / phase),
            ledger=ledger,
            header=self.header,
            settings=self.settings.federation(),
            training=self.settings.training(personal=False),
        )

    def _on_reply(self, phase: str, replies: int, clients: int) -> None:
        self.progress("reply", {"phase": phase, "replies": replies, "clients": clients})

    def _ledger(self, phase: str) -> Ledger:
        return Ledger(self.folder / "ledger" / f"{phase}.jsonl")

    def _fresh_ledger(self, phase: str) -> Ledger:
        ledger = self._ledger(phase)
        ledger.path.unlink(missing_ok=True)
        return ledger
