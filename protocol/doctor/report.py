"""Telling a doctor's findings on the terminal, or to another program."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.table import Table
from rich.text import Text

from fedperfit.protocol.doctor.findings import Finding, Verdict
from fedperfit.protocol.system.commands import console
from fedperfit.protocol.system.errors import printable

JSON_HELP = "Print the findings as JSON, for another program."
_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.WRONG: "bold red"}


def tell(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print findings.

    Args:
        findings: What was found.
        as_json: Whether as a list of JSON objects instead of a table.

    Raises:
        typer.Exit: With code 1, where something is wrong.
    """
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        console().print(_table(findings))
        counts = Counter(finding.verdict for finding in findings)
        console().print(", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict))
    if any(finding.verdict is Verdict.WRONG for finding in findings):
        raise typer.Exit(1)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table("", "check", "found")
    for finding in findings:
        said = f"{finding.said}\n-> {finding.advice}" if finding.advice else finding.said
        lines = "\n".join(printable(line) for line in said.splitlines())
        table.add_row(
            Text(finding.verdict, _COLOURS[finding.verdict]), Text(printable(finding.check)), Text(lines)
        )
    return table
