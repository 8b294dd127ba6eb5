"""Clients of a simulation: each user of a data set in a folder of their own."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import TypedDict

from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.edge.agent.consent import limit_epsilon
from fedperfit.edge.agent.history import History, read_history, write_history
from fedperfit.edge.chameleon.encoder import sentence_encoder
from fedperfit.edge.sums.party import make_keys
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import MalformedFileError
from fedperfit.protocol.system.files import from_home, write_json
from fedperfit.protocol.tasks import Task, task_by_name
from fedperfit.simulation.client_app import CLIENTS, ENROLLED, read_enrolled
from fedperfit.simulation.data.lamp import User, open_lamp
from fedperfit.simulation.data.participants import tables_of, try_metrics
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.sent_scan import total
from fedperfit.simulation.stored_models import AGENT, read_about
from fedperfit.simulation.study_folder import LOCK, check_free
from fedperfit.simulation.world.build import (
    BOUNDS,
    LIMIT,
    NEW_USERS,
    WORLD,
    Bounds,
    Limits,
    read_bounds,
    read_limits,
    write_world,
)
from fedperfit.simulation.world.settings import WorldSize

ROSTER = Path(CLIENTS) / "roster.json"
"""File in the run folder that says which user each client is."""
OTHERS, TARGETS, NEW = "others", "targets", "new"
"""Groups of clients: those who train, those who are evaluated, and those who join after training."""


class Client(TypedDict):
    """Who a client of a simulation is."""

    group: str
    """Group that it belongs to: `others`, `targets` or `new`."""
    user: str
    """User of the data whose history it has."""


Roster = dict[str, Client]
"""All clients by name, in the order of the partitions."""


def prepare_run(settings: RunSettings, folder: Path, *, resume: bool) -> Roster:
    """Write settings and clients of a run into its folder, which no other process may do meanwhile.

    Where that is killed, the run can be gone on with; where it fails, the folder is as it was.

    Args:
        settings: Settings of the run.
        folder: Folder of the run, which is there.
        resume: Whether it holds the run already.

    Returns:
        The clients.

    Raises:
        InputError: It holds a run that is not to be resumed, or something else, or as `prepare_clients` does.
    """
    if not resume:
        check_free(folder)
    try:
        write_json(folder / SETTINGS, settings.to_flat())
        return prepare_clients(settings, folder)
    except Exception:
        if not resume:
            _empty(folder)
        raise


def _empty(folder: Path) -> None:
    """Remove all that was written into the folder of a run."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def prepare_clients(settings: RunSettings, folder: Path) -> Roster:
    """Write `folder/clients/<partition>/` for every user of the run.

    A folder that is already prepared is left as it is.

    Args:
        settings: Settings of the run.
        folder: Folder of the run.

    Returns:
        The clients.

    Raises:
        InputError: Data, or what is on file of all clients, is missing or broken, encoder or metric cannot be
            loaded, or the metric fails.
    """
    if (folder / ROSTER).exists():
        read_about(folder / CLIENTS)  # without what all clients share none of them could answer
        read_enrolled(folder / CLIENTS)
        return _read_roster(folder)
    if settings.encoder:
        sentence_encoder(settings.encoder, "cpu")
    task = task_by_name(settings.task)
    with tables_of(settings.data, folder) as tables:
        return _write_clients(settings, folder, task, tables)


def _write_clients(settings: RunSettings, folder: Path, task: Task, tables: Path | None) -> Roster:
    """Write what each client holds, and the roster of them all.

    Args:
        settings: Settings of the run.
        folder: Folder of the run.
        task: Task that is worked on.
        tables: Folder of the tables of the data; None for the user's cache.
    """
    root = _data_folder(settings, folder)
    data = open_lamp(root, task, tables)
    try_metrics(task, data)
    groups = [
        (OTHERS, data, "others", settings.others),
        (TARGETS, data, "targets", settings.targets),
    ]
    if (root / NEW_USERS).is_dir():
        groups.append((NEW, open_lamp(root / NEW_USERS, task, tables), "targets", settings.new))
    roster: Roster = {}
    bounds: Bounds = {}
    limits: Limits = {}
    for group, source, part, limit in groups:
        users_root = root / NEW_USERS if group == NEW else root
        known, after = read_bounds(users_root), read_limits(users_root)
        for number, name in enumerate(source.users(part)[:limit]):
            client = f"{group}-{number}"
            user = source.user(part, name)
            place = folder / CLIENTS / str(len(roster))
            write_history(place, _history(client, task, user, group, settings))
            limit_epsilon(place, settings.personal_epsilon)
            roster[client] = {"group": group, "user": name}
            if name in known and group != OTHERS:
                bounds[client] = known[name]
            if name in after:
                limits[client] = after[name]
    if bounds:
        write_json(folder / BOUNDS, bounds)
    if limits:
        write_json(folder / LIMIT, limits)
    _write_agent(folder, settings)
    if settings.secure:
        _enrol(folder, list(roster))
    write_json(folder / ROSTER, roster)
    return roster


def _read_roster(folder: Path) -> Roster:
    """Read who the clients of a prepared folder are, and that what their replies held is on file.

    Raises:
        InputError: Naming a broken file.
    """
    roster = read_form(folder / ROSTER, Roster)
    if not roster:
        raise MalformedFileError(f"{folder / ROSTER}: no clients")
    total(folder / CLIENTS / str(partition) for partition in range(len(roster)))
    return roster


def write_clients(folder: Path, histories: Sequence[History], settings: RunSettings) -> None:
    """Write `folder/clients/<partition>/` for each history, in their order: the clients of a federation.

    Args:
        folder: The run's.
        histories: One per client.
        settings: Base model, device, dtype, cache and encoder of the agents.
    """
    for partition, history in enumerate(histories):
        write_history(folder / CLIENTS / str(partition), history)
    _write_agent(folder, settings)
    if settings.secure:
        _enrol(folder, [history.name for history in histories])


def read_clients(folder: Path) -> list[History]:
    """Read the histories that `write_clients` wrote into a run's folder, in their order."""
    folders = [path.parent for path in (folder / CLIENTS).glob("*/client.json")]
    return [read_history(path) for path in sorted(folders, key=lambda path: int(path.name))]


def count_clients(settings: RunSettings) -> int:
    """Count the clients that `prepare_clients` will make."""
    if settings.data == WORLD:
        return settings.others + settings.targets + settings.new
    data = open_lamp(from_home(settings.data), task_by_name(settings.task))
    return min(settings.others, len(data.users("others"))) + min(settings.targets, len(data.users("targets")))


def _write_agent(folder: Path, settings: RunSettings) -> None:
    agent = {
        "base-model": settings.base_model,
        "device": settings.device,
        "dtype": settings.dtype,
        "cache-gib": settings.cache_gib,
        "encoder": settings.encoder,
        "storages": settings.storages,
    }
    write_json(folder / CLIENTS / AGENT, agent)


def _enrol(folder: Path, names: Sequence[str]) -> None:
    """Give every client keys for secure sums, and all of them the directory; names are by partition."""
    keys = {name: make_keys(folder / CLIENTS / str(n)).public for n, name in enumerate(names)}
    write_json(folder / CLIENTS / ENROLLED, Directory(keys).to_json())


def _data_folder(settings: RunSettings, folder: Path) -> Path:
    if settings.data != WORLD:
        return from_home(settings.data)
    size = WorldSize(
        others=settings.others,
        targets=settings.targets,
        new=settings.new,
        history=settings.world_history,
        questions=settings.world_questions,
    )
    lengths = settings.history_lengths
    task = task_by_name(settings.task)
    return write_world(folder / "world", task, size, settings.seed, lengths=lengths)


def _history(client: str, task: Task, user: User, group: str, settings: RunSettings) -> History:
    answered = [question for question in user.questions if question["gold"]]
    return History(
        name=client,
        task=task,
        shares_metrics=settings.share_metrics,
        items=user.history,
        answered=answered if group == OTHERS else [],
        questions=[] if group == OTHERS else answered,
    )
