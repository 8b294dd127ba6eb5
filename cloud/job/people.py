"""The basis of personal shifts that a run releases, and the prior over people in it.

How people differ is told by the updates of the rounds, or by public people who are nobody of the federation.
"""

from pathlib import Path

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.protocol.people.people import People
from fedperfit.protocol.people.prior import estimated_prior, part
from fedperfit.protocol.people.scatter import MOST_NUMBERS, Scatter
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import from_home, read_parsed, write_atomic

PUBLIC_PEOPLE = "people.scatter"
"""File of a run's folder: how public people differ."""


def released_people(basis: Basis, settings: JobSettings, scatter: Scatter | None) -> People:
    """Make what a release says of people.

    Args:
        basis: Basis of the rounds' updates.
        settings: Settings of the job.
        scatter: How people differ in it; None where the settings ask for no prior.

    Raises:
        InputError: If the basis has too few columns, or nothing tells how people differ.
    """
    own, places = part(basis, settings.personal_columns)
    if scatter is None:
        return People(own)
    prior = estimated_prior(
        scatter.total[places][:, places],
        scatter.count,
        floor=settings.floor,
        strength=settings.prior_strength,
        items=settings.prior_items,
        numbers=settings.personal_numbers,
        gives_way=settings.prior_gives_way,
    )
    return People(own, prior)


def public_people(basis: Basis, settings: JobSettings, folder: Path) -> Scatter:
    """Return how public people differ, which a run's folder keeps from the first time on.

    Args:
        basis: Basis of the rounds' updates.
        settings: Settings of the job, with `prior-source=public`.
        folder: The run folder.

    Raises:
        InputError: If the file is missing, malformed or of another basis.
    """
    path = folder / PUBLIC_PEOPLE
    if path.exists():
        return read_scatter(path, basis)
    if not settings.prior_file:
        raise InputError(
            "prior-source=public: expected prior-file, a file that `fedperfit prior` makes of public people"
        )
    named = from_home(settings.prior_file)
    scatter = read_scatter(named, basis)
    write_atomic(path, scatter.to_bytes())
    return scatter


def check_numbers(numbers: int) -> None:
    """Raise InputError where a basis has too many coordinates for a prior over people."""
    if numbers > MOST_NUMBERS:
        raise InputError(
            f"people-prior: updates of {numbers} numbers, at most {MOST_NUMBERS}: choose a lower "
            "collective-rank, fewer layers or fewer update-columns"
        )


def read_scatter(path: Path, basis: Basis) -> Scatter:
    """Read a file that says how public people differ.

    Args:
        path: The file.
        basis: The basis that it must be in.

    Raises:
        InputError: Naming the file, if it is missing, malformed or of another basis.
    """
    return read_parsed(path, lambda data: Scatter.from_bytes(data, basis.digest, basis.numbers))
