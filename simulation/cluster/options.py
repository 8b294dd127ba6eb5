"""Options of the commands that have work done on a Ray cluster."""

import math
from collections.abc import Mapping
from typing import Annotated

import typer

from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.cluster.cluster import LEAST_CPUS, ClusterRequest
from fedperfit.simulation.cluster.head import check_address


def _checked(address: str) -> str:
    """Return an address at which a cluster answers, before anything is made for its work."""
    check_address(address)
    return address


RayAddress = Annotated[
    str,
    typer.Option(
        callback=_checked,
        help="With Ray: `HOST:PORT` of a running cluster, or `auto` for this machine's; by default one is "
        "started here, and stopped.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        help="Processes that work side by side, on Ray if more than one; 0 is as many as there is room for.",
    ),
]
RayActors = Annotated[
    int, typer.Option(min=0, help="With Ray: number of processes; 0 is as many as there is room for.")
]
ActorCpus = Annotated[
    float | None,
    typer.Option(
        min=LEAST_CPUS,
        help="With Ray: cores of each process; by default one, or an equal share where a cluster is started "
        "here for a given number of processes.",
    ),
]
ActorGpus = Annotated[
    float | None,
    typer.Option(min=0, help="With Ray: GPUs of each process; by default one, or an equal share of fewer."),
]


def share_of_gpu(share: float) -> float:
    """Return a share of a GPU per client as it is given; raises InputError where none can be meant."""
    if not 0 <= share < math.inf:
        raise InputError(f"client-gpus={share:g}: expected a share of a GPU, 0 or more")
    return share


def asked(workers: int, address: str, cpus: float | None, gpus: float | None) -> ClusterRequest | None:
    """Return the workers that the options of a study ask for; None where this process is the only one.

    Args:
        workers: Value of `--workers`; at a given address, 1 is as many as there is room for.
        address: Value of `--ray-address`.
        cpus: Value of `--actor-cpus`.
        gpus: Value of `--actor-gpus`.

    Raises:
        InputError: Cores or GPUs are given for workers that are not asked for.
    """
    if workers == 1 and not address:
        refuse_unused(
            "--workers of more than one, or --ray-address", {"actor-cpus": cpus, "actor-gpus": gpus}
        )
        return None
    return ClusterRequest(address, 0 if workers == 1 else workers, cpus, gpus)


def typed(workers: int | None, address: str, cpus: float | None, gpus: float | None) -> dict[str, object]:
    """Return the options of a study's workers by name, to be typed again when it is gone on with.

    Args:
        workers: Value of `--workers`; None where it is the default.
        address: Value of `--ray-address`.
        cpus: Value of `--actor-cpus`.
        gpus: Value of `--actor-gpus`.
    """
    return {"workers": workers, "ray_address": address, "actor_cpus": cpus, "actor_gpus": gpus}


def refuse_unused(need: str, options: Mapping[str, object]) -> None:
    """Refuse options that would do nothing as a command is typed.

    Args:
        need: What they are good with.
        options: Values by name; those that say nothing were not given.

    Raises:
        InputError: One was given.
    """
    for name, value in options.items():
        if value:
            raise InputError(f"--{name} {value}: only with {need}")
