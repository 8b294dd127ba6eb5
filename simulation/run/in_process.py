"""A federation in this process over histories in memory, for programs and notebooks."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedperfit.cloud.job.events import recording
from fedperfit.cloud.job.job import Job
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.edge.agent.history import History
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json
from fedperfit.simulation.basis.prepared import prepare_public
from fedperfit.simulation.client_app import CLIENTS, read_enrolled
from fedperfit.simulation.cluster.scratch import scratch
from fedperfit.simulation.cohorts.devices import on_devices
from fedperfit.simulation.cohorts.grid import CohortGrid
from fedperfit.simulation.run.clients import read_clients, write_clients
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.stored_models import items_of

_CONNECT_SECONDS = 120.0


@dataclass(frozen=True)
class FederationResult:
    """What a federation came to."""

    shift: Shift
    """Collective shift after the last round, on the CPU and frozen."""
    header: ShiftHeader
    """Shape, task, base model and round of the shift; what a release says of it."""
    rounds: list[RoundReport]
    """One report per round: clients, items, loss in nats per target token, bytes down and up."""


def run_federation(
    histories: Sequence[History],
    *,
    preset: str = "quickstart",
    settings: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> FederationResult:
    """Train the collective shift of a federation whose clients are these histories (PerFit, stage 1).

    The messages, the checks of replies and the aggregation are those of a federation over a network; the
    clients act side by side in this process.

    Args:
        histories: One per client; names of letters, digits and `._-`, each used once; all of one task.
        preset: Preset by name or TOML file.
        settings: Settings on top of the preset by name, e.g. `{"rounds": 4, "collective-rank": 8}`; the
            task is that of the histories.
        folder: Where checkpoints, the byte ledger and the clients' histories are kept; a run that was
            killed goes on when it is called again with the same folder and arguments. By default a
            temporary folder that is removed.
        on_event: Called with each event (`{"event": "round", "loss": …}` and so on) as it happens.

    Returns:
        The shift, its header, and a report of each round.

    Raises:
        InputError: No histories, several tasks or equal names, an unknown setting, a value that is not
            allowed, a shape that does not fit the base model, or a folder that holds another run.
    """
    if not histories:
        raise InputError("a federation needs at least one history")
    tasks = {history.task.id: history.task for history in histories}
    if len(tasks) > 1:
        raise InputError(f"the histories are of several tasks: {', '.join(sorted(tasks))}")
    (task,) = tasks.values()
    if len({history.name for history in histories}) < len(histories):
        raise InputError("two histories have the same name")
    wanted = RunSettings.read(preset, {**(settings or {}), "task": task.reference})
    with scratch() if folder is None else nullcontext(folder) as place:
        return _run(Path(place).resolve(), wanted, histories, on_event or (lambda event: None))


def _run(
    folder: Path,
    settings: RunSettings,
    histories: Sequence[History],
    on_event: Callable[[dict[str, Any]], None],
) -> FederationResult:
    if (folder / SETTINGS).exists():
        _check_same(folder, settings, histories)
    else:
        write_clients(folder, histories, settings)
        write_json(folder / SETTINGS, settings.to_flat())
    names = [history.name for history in histories]
    grid, clock = on_devices(
        CohortGrid(folder, len(names)),
        median=settings.device_seconds,
        spread=settings.device_spread,
        seed=settings.seed,
    )
    with recording(folder, on_event) as record:
        job = Job(grid, settings, folder, record, clock=clock)
        job.connect(len(names), _CONNECT_SECONDS)
        job.choose(names)
        job.directory = read_enrolled(folder / CLIENTS)
        prepare_public(folder, job.chosen, settings.data, lambda: items_of(folder / CLIENTS).base)
        federation, shift = job.train("train", names)
    return FederationResult(shift.requires_grad_(False), job.trained_header, list(federation.history))


def _check_same(folder: Path, settings: RunSettings, histories: Sequence[History]) -> None:
    if RunSettings.from_file(folder / SETTINGS) != settings:
        raise InputError(f"{folder} holds a federation with other settings: name another folder")
    if read_clients(folder) != list(histories):
        raise InputError(f"{folder} holds a federation of other histories: name another folder")
