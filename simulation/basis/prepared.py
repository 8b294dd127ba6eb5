"""What a run on the world takes from its population before the first round, once, into its folder."""

from collections.abc import Callable
from pathlib import Path

from fedperfit.cloud.job.basis import BASIS, run_basis
from fedperfit.cloud.job.people import PUBLIC_PEOPLE, check_numbers
from fedperfit.cloud.job.settings import JobSettings
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.people.scatter import Scatter
from fedperfit.protocol.shift.basis import coordinate_count
from fedperfit.protocol.system.files import write_atomic
from fedperfit.simulation.basis import learned
from fedperfit.simulation.basis.people import OnPerson, world_people, write_people
from fedperfit.simulation.basis.public import make_basis, world_pairs
from fedperfit.simulation.world.build import WORLD


def prepare_basis(
    folder: Path,
    settings: JobSettings,
    data: str,
    base: Callable[[], BaseModel],
    on_step: learned.OnStep = lambda done, steps: None,
) -> None:
    """Write the basis of a run on the world into its folder, once; other runs name a file.

    A basis that is learned tells how its people differ, too, who are then the prior's public people.

    Args:
        folder: The run folder.
        settings: Settings of the run, with layers and ranks chosen.
        data: Where the run's clients come from.
        base: Loads the base model, where it is needed.
        on_step: Told of the progress of learning a basis.
    """
    path = folder / BASIS
    if settings.basis_file or data != WORLD or path.exists():
        return
    if settings.update_basis == "public":
        write_atomic(path, make_basis(base(), settings, world_pairs(settings)).to_bytes())
    if settings.update_basis == "learned":
        kept = path.with_name(path.name + ".part")
        if _wants_people(settings):
            check_numbers(coordinate_count(settings.shape(base().card), settings.update_columns))
        people = world_people(settings, learned.PEOPLE, learned.ITEMS)
        basis, coordinates = learned.learn_basis(kept, base(), settings, people, on_step)
        if _wants_people(settings):
            write_atomic(folder / PUBLIC_PEOPLE, Scatter.of(basis.digest, coordinates).to_bytes())
        write_atomic(path, basis.to_bytes())
        kept.unlink(missing_ok=True)


def prepare_public(
    folder: Path,
    settings: JobSettings,
    data: str,
    base: Callable[[], BaseModel],
    on_person: OnPerson = lambda fitted, people: None,
    on_step: learned.OnStep = lambda done, steps: None,
) -> None:
    """Write what a run on the world takes from its population, once: the basis, and how people differ in it.

    Args:
        folder: The run folder.
        settings: Settings of the run, with layers and ranks chosen.
        data: Where the run's clients come from.
        base: Loads the base model, where it is needed.
        on_person: Told of the progress of fitting people.
        on_step: Told of the progress of learning a basis.
    """
    prepare_basis(folder, settings, data, base, on_step)
    path = folder / PUBLIC_PEOPLE
    if not _wants_people(settings) or data != WORLD or path.exists():
        return
    basis = run_basis(settings, base().card, folder)
    assert basis is not None
    write_people(path, base(), settings, basis, world_people(settings), on_person)


def _wants_people(settings: JobSettings) -> bool:
    return settings.prior_source == "public" and not settings.prior_file
