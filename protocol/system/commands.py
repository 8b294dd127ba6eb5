"""What the three console scripts share."""

import os
import sys

import typer
from rich.console import Console

from fedperfit.protocol.system.errors import InputError, RunFailed, printable
from fedperfit.protocol.system.processes import SAFE_PATH


def run(app: typer.Typer, name: str) -> None:
    """Run a command line; a mistake, or a system that refuses, is one line on stderr and exit code 2.

    A run that fails is one line and exit code 1.
    """
    os.environ.update(SAFE_PATH)
    try:
        app(prog_name=name)
    except InputError as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(2)
    except RunFailed as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {printable(f'{place}{error.strerror or error}')}", err=True)
        sys.exit(2)


def console() -> Console:
    """Wide where the output is not a terminal, so that hashes stay whole."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)
