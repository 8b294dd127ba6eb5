"""What the three console scripts share."""

import sys

import typer

from protocol.errors import InputError


def run(app: typer.Typer, name: str) -> None:
    """Run a command line; a user's mistake is one line on stderr and exit code 2."""
    try:
        app(prog_name=name)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
