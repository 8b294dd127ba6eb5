"""Cost of secure sums for each party, with 30 % of clients and members lost, and how far a sum is off."""

import time
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from rich.table import Table

from fedperfit.edge.sums.party import KEYS, SumParty
from fedperfit.protocol.secure_sums.field import Elements
from fedperfit.protocol.secure_sums.fixed_point import FixedPoint
from fedperfit.protocol.secure_sums.keys import Directory, SumKeys
from fedperfit.protocol.secure_sums.parameters import CommitteeShape
from fedperfit.protocol.secure_sums.sealing import contribute, envelopes
from fedperfit.protocol.secure_sums.session import Session
from fedperfit.protocol.secure_sums.sharing import reconstruct
from fedperfit.protocol.system.files import write_atomic
from fedperfit.simulation.benchmark.record import Record
from fedperfit.simulation.cluster.scratch import scratch

CLIENTS = (10, 40, 200, 1000)
ENCODINGS = ("sign", "float32")
NUMBERS = 300
"""Numbers of an update."""
LOST = 0.3
"""Share of the clients, and of the members, that are lost."""
_SMALL, _LARGE = CommitteeShape(10, 1, 7), CommitteeShape(20, 3, 14)
_NORM = 0.5


def run(record: Record) -> list[dict[str, Any]]:
    """Measure every encoding at every number of clients.

    Args:
        record: Measurements on file.
    """
    rows = []
    for count in CLIENTS:
        for codec in ENCODINGS:
            figures = record.measure(f"secure-sums/{count}/{codec}", partial(take, count, codec))
            rows.append({"clients": count, "encoding": codec, **figures})
    return rows


def take(clients: int, codec: str) -> dict[str, Any]:
    """Run one round and return bytes, milliseconds and errors.

    Args:
        clients: Number of clients.
        codec: Encoding of the updates.
    """
    keys = {f"client-{number}": SumKeys.new() for number in range(clients)}
    session = _session(keys, codec)
    left = list(keys)[: clients - round(LOST * clients)]
    draws = torch.Generator().manual_seed(0)
    changes = {name: 0.02 * torch.randn(NUMBERS, generator=draws) for name in left}
    sent, sealing = {}, []
    for number, name in enumerate(left):
        started = time.perf_counter()
        values = session.numbers.encode(changes[name], _NORM, number)
        sent[name] = contribute(values, session, name, keys[name])
        sealing.append(time.perf_counter() - started)
    started = time.perf_counter()
    taken = [envelopes(sent[name], session, name) for name in left]
    sorting = time.perf_counter() - started
    answers, adding = _answers(session, keys, left, taken)
    started = time.perf_counter()
    total, _ = reconstruct(answers, NUMBERS, session.shape, session.numbers.field)
    told = session.numbers.decode(total, len(left)) / len(left)
    sorting += time.perf_counter() - started
    return {
        "size": session.shape.size,
        "corrupt": session.shape.corrupt,
        "threshold": session.shape.threshold,
        "summed": len(left),
        "answered": len(answers),
        "bytes_up": len(sent[left[0]]),
        "bytes_to_member": sum(len(each[0]) for each in taken) + sum(map(len, left)),
        "bytes_from_member": session.columns * session.numbers.field.width,
        "contributor_ms": 1e3 * median(sealing),
        "member_ms": 1e3 * median(adding),
        "cloud_ms": 1e3 * sorting,
        "off": float((told - _plain_mean(list(changes.values()), codec)).abs().max()),
    }


def _answers(
    session: Session, keys: dict[str, SumKeys], names: Sequence[str], taken: Sequence[Sequence[bytes]]
) -> tuple[dict[int, Elements], list[float]]:
    """Let the members that are not lost answer, each in a folder of its own."""
    field, answers, seconds = session.numbers.field, {}, []
    with scratch() as place:
        for index in range(session.shape.size - round(LOST * session.shape.size)):
            member = session.members[index]
            write_atomic(place / member / KEYS, keys[member].to_bytes())
            party = SumParty(place / member, member, session.directory)
            started = time.perf_counter()
            told = party.answer(session, names, [each[index] for each in taken]).total
            seconds.append(time.perf_counter() - started)
            answers[index] = field.from_bytes(told, session.columns)
    return answers, seconds


def _session(keys: dict[str, SumKeys], codec: str) -> Session:
    return Session(
        run="0" * 32,
        round=1,
        agreement="",
        shape=_SMALL if len(keys) < _LARGE.size else _LARGE,
        numbers=FixedPoint(codec, NUMBERS, len(keys)),
        least=2,
        release="",
        directory=Directory({name: key.public for name, key in keys.items()}),
    )


def _plain_mean(changes: Sequence[torch.Tensor], codec: str) -> torch.Tensor:
    """Return the mean of the votes, or of the clipped changes in clipping norms, in double precision."""
    rows = torch.stack(list(changes)).double()
    parts = rows.sign() if codec == "sign" else rows / rows.norm(dim=1, keepdim=True).clamp(min=_NORM)
    mean: torch.Tensor = parts.mean(dim=0)
    return mean


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Tabulate bytes and milliseconds by number of clients and encoding."""
    title = f"secure sums of {NUMBERS} numbers, {LOST:.0%} of clients and of members lost"
    printed = Table(title=title, min_width=len(title))
    for name in (
        *("clients", "encoding", "committee", "B up", "B to a member", "B back"),
        *("ms a client", "ms a member", "ms cloud", "error of the mean"),
    ):
        printed.add_column(name, justify="right")
    for row in rows:
        printed.add_row(
            f"{row['clients']:,}",
            row["encoding"],
            f"{row['size']}/{row['corrupt']}/{row['threshold']}",
            *(f"{row[key]:,}" for key in ("bytes_up", "bytes_to_member", "bytes_from_member")),
            *(f"{row[key]:.1f}" for key in ("contributor_ms", "member_ms", "cloud_ms")),
            f"{row['off']:.1e}" if row["off"] else "0",
        )
    return printed
