"""The command `fedperfit plan`."""

import json
import reprlib
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedperfit.protocol.system.commands import console
from fedperfit.protocol.system.errors import InputError, count_of

if TYPE_CHECKING:
    from rich.table import Table

    from fedperfit.simulation.plan.costs import Costs


_DIGITS = 20
"""Most digits of a number of people that is read at all."""


class Form(StrEnum):
    """Forms of updates whose costs were measured."""

    VOTES = "votes"
    INT8 = "int8"
    SHIFTS = "shifts"


def plan(
    clients: Annotated[
        str, typer.Option(help="Numbers of people enrolled, separated by commas.")
    ] = "10000,100000,1000000,10000000",
    form: Annotated[
        Form,
        typer.Option(
            help="Updates of one bit a coordinate (36 B) or one byte (3 kB), or whole shifts in fp32 (25 kB)."
        ),
    ] = Form.VOTES,
    up: Annotated[int | None, typer.Option(help="Bytes of an update, where they are others.", min=1)] = None,
    down: Annotated[
        int | None,
        typer.Option(help="Bytes of a broadcast, where they are not those of such updates.", min=1),
    ] = None,
    connected: Annotated[
        float, typer.Option(help="Share of the people whose device is connected when a round begins.")
    ] = 0.3,
    answering: Annotated[
        float, typer.Option(help="Share of the clients asked that answer before the deadline.")
    ] = 0.8,
    round_size: Annotated[
        int, typer.Option(help="Updates that a round wants; 0 is those of all that are connected.")
    ] = 1_000,
    rounds: Annotated[int, typer.Option(help="Rounds of training.")] = 100,
    device_seconds: Annotated[
        float, typer.Option(help="Seconds until the slowest device of a round has answered.")
    ] = 120.0,
    megabits: Annotated[
        float, typer.Option(help="Megabits per second between the cloud and its clients.")
    ] = 1_000.0,
    once_bytes: Annotated[
        int, typer.Option(help="Bytes that each client is sent once, such as the basis of updates.")
    ] = 0,
    benchmark: Annotated[
        Path | None,
        typer.Option(help="Record of `fedperfit benchmark --parts rounds` of your machine, for its costs."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")] = False,
) -> None:
    """Say what a federation of many people would cost its cloud: messages, bytes, seconds, memory.

    The cloud's processor seconds and memory are those that the benchmark measured on two cores; SuperLink,
    TLS and the database between are not in them.

    Example: fedperfit plan --clients 1000000 --round-size 5000 --form shifts
    """
    from fedperfit.simulation.plan.constants import read_constants
    from fedperfit.simulation.plan.costs import Assumptions, check_count, costs

    for name, size in (("up", up), ("down", down)):
        check_count(name, size or 1, least=1)
    constants = read_constants(benchmark, form.value).of_size(up, down)
    found = [
        costs(
            Assumptions(
                clients=number,
                connected=connected,
                answering=answering,
                round_size=round_size,
                rounds=rounds,
                device_seconds=device_seconds,
                bandwidth=1e6 * megabits,
                once_bytes=once_bytes,
            ),
            constants,
        )
        for number in _numbers(clients)
    ]
    if as_json:
        print(json.dumps({"constants": asdict(constants), "plans": [asdict(one) for one in found]}, indent=2))
        return
    out = console()
    out.print(table(found, rounds))
    for one in found:
        if one.replies < round_size:
            out.print(
                f"{one.clients:,} people: a round gets {one.replies:,} of the {round_size:,} updates that it "
                "wants, and waits for the others until its deadline",
                soft_wrap=True,
            )


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) <= _DIGITS):
            raise InputError(f"clients: {reprlib.repr(part)} is not a number of people")
    return [int(part) for part in parts]


def table(found: "list[Costs]", rounds: int) -> "Table":
    """Tabulate costs, a column for each number of people.

    Args:
        found: The costs.
        rounds: Rounds of training.
    """
    from rich.table import Table

    printed = Table(title="what a federation costs its cloud")
    printed.add_column("people")
    for one in found:
        printed.add_column(f"{one.clients:,}", justify="right")
    lines = {
        "connected": [f"{one.connected:,}" for one in found],
        "asked in a round": [f"{one.asked:,}" for one in found],
        "updates of a round": [f"{one.replies:,}" for one in found],
        "messages of a round": [f"{one.messages:,}" for one in found],
        "MB down": [f"{one.bytes_down / 1e6:,.1f}" for one in found],
        "MB up": [f"{one.bytes_up / 1e6:,.1f}" for one in found],
        "cloud's processor s": [f"{one.cloud_seconds:,.1f}" for one in found],
        "s of a round": [f"{one.round_seconds:,.0f}" for one in found],
        "peak memory MB": [f"{one.memory / 1e6:,.0f}" for one in found],
        "status messages, once": [f"{one.status_messages:,}" for one in found],
        f"GB of {count_of(rounds, 'round')}": [f"{one.total_bytes / 1e9:,.2f}" for one in found],
        f"hours of {count_of(rounds, 'round')}": [f"{one.total_seconds / 3600:,.1f}" for one in found],
    }
    for name, cells in lines.items():
        printed.add_row(name, *cells)
    return printed
