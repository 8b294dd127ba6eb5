"""`fedperfit-edge sent` and `log`: what left this machine, what was asked of it, and what was refused."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fedperfit.edge.cli.owner import Folder, owner
from fedperfit.protocol.system.commands import console
from fedperfit.protocol.system.errors import InputError, RunFailed, count_of, printable

_FOLLOW_SECONDS = 0.5
_UNSAID = ("n", "prev", "time", "event", "call", "fields", "settings", "request", "reason", "bytes")


def sent(folder: Folder) -> None:
    """Every message that left this machine: when, what for, each field and its bytes.

    Below, where the SuperNode runs in its sandbox: all that the network carried, by day (UTC), up to half a
    minute ago.
    """
    from rich.markup import escape
    from rich.table import Table

    from fedperfit.edge.deployment.home import Home
    from fedperfit.edge.sandbox.traffic import read_traffic
    from fedperfit.protocol.schema import owner_pb2

    with owner(folder) as agent:
        messages = list(agent.Sent(owner_pb2.SentRequest()))
        told = agent.Explain(owner_pb2.ExplainRequest())
    table = Table("time", "call", "bytes", "fields")
    for message in messages:
        fields = "; ".join(f"{field.name}={field.value} ({field.bytes})" for field in message.fields)
        table.add_row(message.time, message.call, str(message.bytes), escape(printable(fields)))
    out = console()
    out.print(table)
    if told.refused:
        out.print(f"REFUSED: {told.refused}, the latest at {escape(printable(told.refusal))}; see `log`")
    size = sum(message.bytes for message in messages)
    out.print(f"{count_of(len(messages), 'message')}, {count_of(size, 'byte')} in all")
    for day, (up, down) in read_traffic(Home(folder).traffic).items():
        out.print(f"on the wire, polls, headers and TLS included, on {day}: {up:,} bytes up, {down:,} down")


def log(
    folder: Folder,
    verify: Annotated[bool, typer.Option("--verify", help="Check that no line was changed or lost.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C as lines come.")] = False,
) -> None:
    """Every request that came, what was decided, and every message that left; with and without an agent."""
    from fedperfit.edge.audit.verification import verify as check
    from fedperfit.edge.deployment.home import Home

    audit = Home(folder.absolute()).audit
    if not audit.is_dir():
        raise InputError(f"{folder}: holds no log; see fedperfit-edge join")
    if not verify:
        for line in _lines(audit, follow):
            print(line, flush=True)
        return
    verdict = check(audit)
    for gap in verdict.gaps:
        print(f"gap recorded {printable(gap)}")
    for problem in verdict.problems:
        print(problem)
    print(
        f"{count_of(verdict.lines, 'line')} in {count_of(verdict.files, 'file')}, "
        f"{verdict.dropped_lines} older ones dropped; "
        f"the last is {verdict.end.number}, SHA-256 {verdict.end.digest}"
    )
    if verdict.problems:
        raise RunFailed(f"{audit}: not as it was written, in {len(verdict.problems)} places")


def _lines(audit: Path, follow: bool) -> Iterator[str]:
    from fedperfit.edge.audit.files import events
    from fedperfit.protocol.system.processes import until_signal

    last = 0
    with until_signal() as stopping:
        while not stopping():
            for event in events(audit, last):
                last = event["n"]
                yield printable(_line(event))
            if not follow:
                return
            time.sleep(_FOLLOW_SECONDS)


def _line(event: Mapping[str, Any]) -> str:
    parts = [str(event["n"]), str(event.get("time")), str(event.get("event")), str(event.get("call", ""))]
    if event.get("request"):
        parts.append(f"to {event['request']}")
    parts += [f"{name}={value}" for name, value in dict(event.get("settings") or {}).items()]
    parts += [f"{field['name']}={field['value']} ({field['bytes']})" for field in event.get("fields") or ()]
    parts += [f"{name}={value}" for name, value in event.items() if name not in _UNSAID]
    return " ".join(part for part in [*parts, str(event.get("reason", ""))] if part)
