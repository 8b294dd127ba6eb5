"""Life of an audit in its folder: begun, run, resumed, extended, and concluded.

settings.json           what is attacked, and how often
trials/ATTACK.jsonl     one line for each subject: the scores of its trials
result.json             the figures, with the setting they hold for
report.html             the same for people
events.jsonl            what happened when
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from typing_extensions import TypedDict

from fedperfit.cloud.job.events import OnEvent, recording
from fedperfit.cloud.job.settings import SETTINGS
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.settings.forms import read_form_lines
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import append_text, mend_lines, write_json
from fedperfit.protocol.tasks import task_id
from fedperfit.simulation.audit.attack import Attack, Trials, attacks_by_name, chosen
from fedperfit.simulation.audit.ground import Ground
from fedperfit.simulation.audit.page import REPORT, write_page
from fedperfit.simulation.audit.result import RESULT, final_figures, result_of
from fedperfit.simulation.audit.settings import AuditSettings
from fedperfit.simulation.cluster.cluster import ClusterRequest
from fedperfit.simulation.cluster.folders import everywhere
from fedperfit.simulation.cluster.pace import Pace
from fedperfit.simulation.cluster.pool import workers
from fedperfit.simulation.study_folder import LOCK, check_begun, check_new
from fedperfit.simulation.world.build import WORLD, outdate_world


class _Line(TypedDict):
    """The trials on one subject."""

    subject: str
    trials: list[Trials]


def begin(folder: Path, settings: AuditSettings) -> None:
    """Make the folder of a new audit.

    Args:
        folder: Folder to make; empty or not there.
        settings: Settings of the audit.

    Raises:
        InputError: The folder is not empty, an attack is unknown, or the settings do not fit the model.
    """
    check_new(folder, resumable=True, beside=WORLD)
    if settings.open:
        raise InputError("layers and ranks must be given: an audit attacks a fixed shape")
    settings.check(read_card(settings.base_model))
    _attacks(settings)
    folder.mkdir(parents=True, exist_ok=True)
    outdate_world(folder, [task_id(settings.task)])
    write_json(folder / SETTINGS, settings.to_flat())


def extend(folder: Path, attacks: Sequence[str]) -> None:
    """Add attacks to an audit; what is finished stays.

    Args:
        folder: Folder of the audit.
        attacks: Names of attacks to add.

    Raises:
        InputError: The folder holds no audit, or an attack is unknown.
    """
    settings = stored_settings(folder)
    if attacks and settings.attacks:
        settings = settings.replace(attacks=list(dict.fromkeys([*settings.attacks, *attacks])))
    _attacks(settings)
    write_json(folder / SETTINGS, settings.to_flat())


def stored_settings(folder: Path) -> AuditSettings:
    """Read the settings of an audit that was begun; raises InputError where there is none."""
    return AuditSettings.from_file(check_begun(folder, "audit") / SETTINGS)


@dataclass(frozen=True)
class Subject:
    """Part of the work of one attack, which is done in one go."""

    attack: str
    """Name of the attack."""
    name: str
    """One of the attack's subjects."""

    def __str__(self) -> str:
        return f"{self.attack}: {self.name}"


class AuditWorker:
    """Worker of an audit, with its attacks, people and base model."""

    def __init__(self, settings: AuditSettings, folder: Path) -> None:
        """Find the attacks; everything else is loaded for the first subject.

        Args:
            settings: Settings of the audit.
            folder: Folder for what the worker works with.
        """
        ground = Ground(settings, folder)
        self.attacks = {name: attack(ground) for name, attack in _attacks(settings).items()}

    def do(self, payload: Subject) -> Iterator[dict[str, Any]]:
        """Attack a subject, and yield its line.

        Args:
            payload: The subject.
        """
        started = time.perf_counter()
        trials = [each.to_json() for each in self.attacks[payload.attack].trials(payload.name)]
        yield {"subject": payload.name, "seconds": time.perf_counter() - started, "trials": trials}


def run_audit(folder: Path, on_event: OnEvent, request: ClusterRequest | None = None) -> dict[str, Any]:
    """Run or resume the audit of a folder.

    Args:
        folder: Folder of the audit, with its settings.
        on_event: Called with every event after it is appended to the folder's events.
        request: Workers on a cluster that do the work; None is this process.

    Returns:
        The figures, as in result.json.

    Raises:
        InputError: Another process works on this audit, or its data is missing or broken.
    """
    settings = stored_settings(folder)
    try:
        with FileLock(folder / LOCK, timeout=0.2), recording(folder, on_event) as record:
            ours = AuditWorker(settings, folder)
            attacks = [*ours.attacks.values()]
            left = [Subject(each.name, subject) for each in attacks for subject in _left(folder, each)]
            record("start", {"run": str(folder), "total": len(left)})
            make = (lambda place: ours) if request is None else partial(AuditWorker, everywhere(settings))
            with workers(request, make, folder) as hands:
                pace = Pace([subject.attack for subject in left], len(hands))
                for subject, line in hands.work(left, lambda each: each):
                    _keep(folder, ours.attacks[subject.attack], line)
                    record("work", {"last": str(subject), **pace.took(subject.attack, line["seconds"])})
            result = conclude(folder, attacks)
            record("figures", {"figures": final_figures(result)})
            record("done", {"report": str(folder / REPORT)})
            return result
    except Timeout:
        raise InputError(f"{folder}: another process is running this audit") from None


def conclude(folder: Path, attacks: Sequence[Attack]) -> dict[str, Any]:
    """Write result and report from the trials that are on file, and return the result."""
    settings = stored_settings(folder)
    result = result_of(settings, [(attack, list(_trials(folder, attack))) for attack in attacks])
    write_json(folder / RESULT, result)
    write_page(folder, result)
    return result


def _attacks(settings: AuditSettings) -> dict[str, type[Attack]]:
    return chosen(attacks_by_name([Path(file) for file in settings.attack_files]), settings.attacks)


def _file(folder: Path, attack: Attack) -> Path:
    return folder / "trials" / f"{attack.name}.jsonl"


def _left(folder: Path, attack: Attack) -> Iterator[str]:
    """Yield the subjects that are not on file."""
    path = _file(folder, attack)
    mend_lines(path)
    done = {line["subject"] for line in read_form_lines(path, _Line)} if path.exists() else set()
    return (subject for subject in attack.subjects() if subject not in done)


def _trials(folder: Path, attack: Attack) -> Iterator[Trials]:
    for line in read_form_lines(_file(folder, attack), _Line):
        yield from line["trials"]


def _keep(folder: Path, attack: Attack, line: dict[str, Any]) -> None:
    """Put the trials of a subject on file."""
    path = _file(folder, attack)
    path.parent.mkdir(parents=True, exist_ok=True)
    append_text(path, json.dumps(line) + "\n", durable=True)
