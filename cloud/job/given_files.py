"""Files of a basis and of public people that settings name, checked before anything is made of them."""

from fedperfit.cloud.job.basis import read_basis, settings_basis
from fedperfit.cloud.job.people import check_numbers, read_scatter
from fedperfit.cloud.job.settings import JobSettings
from fedperfit.protocol.model.base_model import EMBEDDED, read_card
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import from_home

_DEEPEST = 1024
"""Decoder layers of the deepest model that layers are scaled to."""


def check_given_files(settings: JobSettings) -> None:
    """Check the files that settings name against them.

    A base model that is not on this machine is not downloaded for it: then what needs no model is checked.

    Args:
        settings: Settings of the job.

    Raises:
        InputError: If a file is missing, malformed or of another shape, or no basis ships for the settings.
    """
    if settings.update_basis == "none":
        return
    if settings.base_model == EMBEDDED or from_home(settings.base_model).is_dir():
        basis = settings_basis(settings, read_card(settings.base_model))
    else:
        basis = _basis_for_any_model(settings)
    if basis is None:
        return
    if settings.people_prior:
        check_numbers(basis.numbers)
    if settings.prior_file:
        read_scatter(from_home(settings.prior_file), basis)


def _basis_for_any_model(settings: JobSettings) -> Basis | None:
    """Return the basis of a file that fits the settings on some model; None where they name none."""
    if not settings.basis_file:
        return None
    path = from_home(settings.basis_file)
    basis = read_basis(path)
    compared: list[tuple[str, object, object]] = [
        ("task", basis.task, settings.task_id),
        ("collective-rank", basis.shape.rank, settings.collective_rank),
        ("positions", str(basis.shape.positions), settings.positions),
        ("update-columns", basis.columns, settings.update_columns),
    ]
    for name, has, expected in compared:
        if has != expected:
            raise InputError(f"{path}: the basis is for {name} {has}, expected {expected}")
    if all(settings.layers_on(depth) != basis.shape.layers for depth in range(1, _DEEPEST + 1)):
        raise InputError(
            f"{path}: the basis is for layers {list(basis.shape.layers)}, which layers={settings.layers} of "
            f"{settings.layers_of} are on no model"
        )
    return basis
