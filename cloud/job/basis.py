"""The basis of a run's updates: of the seed, of a file, one that ships, or of the clients' gradients."""

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.shift.basis_sources import federated_basis, random_basis
from fedperfit.protocol.shift.selection import LayerGradient
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import from_home, read_parsed, write_atomic

BASIS = "update.basis"
"""File of a run's basis in its folder."""


def read_basis(path: Path) -> Basis:
    """Read a basis file.

    Raises:
        InputError: Naming the file, if it is missing or malformed.
    """
    return read_parsed(path, Basis.from_bytes)


def settings_basis(settings: JobSettings, card: BaseModelCard) -> Basis | None:
    """Return the basis that settings alone decide, or None where updates are whole shifts.

    Args:
        settings: Settings of the job, with layers and ranks chosen.
        card: The base model.

    Raises:
        InputError: If the basis file is missing, malformed or does not fit the settings, or the basis is
            one that a run's clients make.
    """
    if settings.update_basis == "none":
        return None
    if settings.update_basis == "random":
        return random_basis(
            settings.shape(card),
            settings.update_columns,
            task=settings.task_id,
            fingerprint=card.fingerprint,
            seed=settings.seed,
        )
    if settings.update_basis == "federated":
        raise InputError(
            "update-basis=federated: a simulation's clients make it; elsewhere take public, learned or random"
        )
    if not settings.basis_file:
        shipped = shipped_basis(settings, card) if settings.update_basis == "public" else None
        if shipped is None:
            raise InputError(
                f"update-basis={settings.update_basis}: expected basis-file, a file that `fedperfit basis` "
                "makes of public items or people; none ships for this task, model and shape"
            )
        return shipped
    path = from_home(settings.basis_file)
    basis = read_basis(path)
    check_fits(basis, settings, card, path)
    return basis


def shipped_basis(settings: JobSettings, card: BaseModelCard) -> Basis | None:
    """Return the public basis that ships for these settings; None where there is none.

    There is one for the embedded model in the quickstart's shape and each task of the world, of its
    population.

    Args:
        settings: Settings of the job, with layers and ranks chosen.
        card: The base model.
    """
    path = Path(str(resources.files("fedperfit.configs") / "bases" / f"{settings.task_id}.basis"))
    if not path.is_file():
        return None
    basis = read_basis(path)
    fits = all(has == expected for _, has, expected in _compared(basis, settings, card))
    return basis if fits else None


def run_basis(settings: JobSettings, card: BaseModelCard, folder: Path) -> Basis | None:
    """Return a run's basis, which its folder keeps from the first time on.

    Args:
        settings: Settings of the job, with layers and ranks chosen.
        card: The base model.
        folder: The run folder.

    Raises:
        InputError: As `settings_basis` does, and if the folder holds another run's basis.
    """
    if settings.update_basis == "none":
        return None
    path = folder / BASIS
    if not path.exists():
        basis = settings_basis(settings, card)
        assert basis is not None
        write_atomic(path, basis.to_bytes())
    basis = read_basis(path)
    check_fits(basis, settings, card, path)
    return basis


def gather_basis(
    settings: JobSettings, card: BaseModelCard, folder: Path, gather: Callable[[], Sequence[LayerGradient]]
) -> None:
    """Make the basis of a run of its clients' gradients, once, where that is its basis.

    Args:
        settings: Settings of the job, with layers and ranks chosen.
        card: The base model.
        folder: The run folder.
        gather: Asks the clients for their gradients.

    Raises:
        TooFewClients: If too few clients send theirs.
    """
    path = folder / BASIS
    if settings.update_basis != "federated" or path.exists():
        return
    basis = federated_basis(
        gather(),
        settings.shape(card),
        settings.update_columns,
        task=settings.task_id,
        fingerprint=card.fingerprint,
        seed=settings.seed,
    )
    write_atomic(path, basis.to_bytes())


def check_fits(basis: Basis, settings: JobSettings, card: BaseModelCard, path: Path) -> None:
    """Raise InputError, naming the file, unless a basis is for these settings and this model."""
    for name, has, expected in _compared(basis, settings, card):
        if has != expected:
            raise InputError(f"{path}: the basis is for {name} {has}, expected {expected}")


def _compared(basis: Basis, settings: JobSettings, card: BaseModelCard) -> list[tuple[str, object, object]]:
    """List what must fit: its name, what the basis has, what is expected."""
    return [
        ("task", basis.task, settings.task_id),
        ("base model", basis.fingerprint[:16], card.fingerprint[:16]),
        ("shape", basis.shape, settings.shape(card)),
        ("update-columns", basis.columns, settings.update_columns),
    ]
