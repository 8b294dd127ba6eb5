"""The basis of personal shifts that a run releases, and the prior over people that its rounds show."""

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.cloud.rounds.scatter import MOST_NUMBERS, UpdateScatter
from fedperfit.protocol.people.people import People
from fedperfit.protocol.people.prior import estimated_prior, part
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.system.errors import InputError


def released_people(basis: Basis, settings: JobSettings, scatter: UpdateScatter) -> People:
    """Make what a release says of people.

    Args:
        basis: Basis of the rounds' updates.
        settings: Settings of the job.
        scatter: How the updates of the rounds differed.

    Raises:
        InputError: If the basis has too few columns, or the updates tell of no prior.
    """
    own, places = part(basis, settings.personal_columns)
    if not settings.people_prior:
        return People(own)
    total, count = scatter.total(basis.numbers, settings.rounds)
    prior = estimated_prior(
        total[places][:, places],
        count,
        directions=settings.prior_directions,
        floor=settings.prior_floor,
        strength=settings.prior_strength,
        items=settings.prior_items,
        numbers=settings.personal_numbers,
    )
    return People(own, prior)


def check_numbers(basis: Basis) -> None:
    """Raise InputError where a basis has too many coordinates for a prior over people."""
    if basis.numbers > MOST_NUMBERS:
        raise InputError(
            f"people-prior: updates of {basis.numbers} numbers, at most {MOST_NUMBERS}: choose a lower "
            "collective-rank, fewer layers or fewer update-columns"
        )
