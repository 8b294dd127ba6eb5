"""Whether a log is as it was written: no line changed, dropped from between others, or put in."""

from dataclasses import dataclass, field
from pathlib import Path

from fedperfit.edge.audit.chain import Link, parsed
from fedperfit.edge.audit.files import FILE, numbers, path_of
from fedperfit.protocol.system.errors import InputError


@dataclass
class Verdict:
    """What the check of a log found."""

    files: int = 0
    """Files that are there."""
    lines: int = 0
    """Lines that were checked."""
    first_line: int = 1
    """Number of the oldest line that is there."""
    dropped_lines: int = 0
    """Oldest lines that were dropped to keep the log bounded, as it records itself."""
    end: Link = field(default_factory=Link)
    """End of the chain; whoever noted it can tell later that nothing before it was changed."""
    gaps: list[str] = field(default_factory=list)
    """Gaps that the log records itself: after a kill, without room, or after unreadable lines."""
    problems: list[str] = field(default_factory=list)
    """What is not as it was written; none in a sound log."""


def verify(folder: Path) -> Verdict:
    """Check every line of a log against the one before it.

    Args:
        folder: Folder of the log.
    """
    verdict = Verdict()
    link: Link | None = None
    for number in numbers(folder):
        path = path_of(folder, number)
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # dropped meanwhile
            continue
        verdict.files += 1
        *lines, rest = data.split(b"\n")
        for position, line in enumerate(lines, start=1):
            link = _check(verdict, line, f"{path.name}, line {position}", link, number)
        if rest and number != numbers(folder)[-1]:
            verdict.problems.append(f"{path.name}: its last line is unfinished")
    verdict.end = link or Link()
    if verdict.first_line - 1 > verdict.dropped_lines:
        verdict.problems.append(f"lines {verdict.dropped_lines + 1} to {verdict.first_line - 1} are missing")
    return verdict


def _check(verdict: Verdict, line: bytes, where: str, link: Link | None, file: int) -> Link:
    verdict.lines += 1
    try:
        event = parsed(line)
    except InputError as error:
        verdict.problems.append(f"{where}: {error}")
        return (link or Link()).after(line)
    if link is None:
        link = _first(verdict, event, where, file)
    if (event["n"], event["prev"]) != (link.number + 1, link.digest):
        verdict.problems.append(f"{where}: does not follow the line before it")
    if event.get("event") == FILE:
        verdict.dropped_lines = event.get("dropped_lines", 0)
    if event.get("event") == "gap":
        verdict.gaps.append(f"{event.get('time')}: {event.get('reason')}")
    return Link(event["n"] - 1).after(line)


def _first(verdict: Verdict, event: dict[str, object], where: str, file: int) -> Link:
    """Where the chain begins: at nothing, or, where older files were dropped, at what the first one says."""
    if file == 1:
        return Link()
    if event.get("event") != FILE:
        verdict.problems.append(f"{where}: does not begin as a file of the log")
    verdict.first_line = int(str(event["n"]))
    return Link(int(str(event["n"])) - 1, str(event["prev"]))
