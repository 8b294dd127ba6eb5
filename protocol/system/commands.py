"""Running a command line and printing to the terminal, shared by all console scripts."""

import gc
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from importlib.metadata import version
from typing import Annotated, ParamSpec

import typer
from click.exceptions import Abort, ClickException, NoArgsIsHelpError, UsageError
from rich.console import Console

from fedperfit.protocol.system.errors import InputError, RunFailed, TooFewClients, printable, refusal_of
from fedperfit.protocol.system.processes import SAFE_PATH

Given = ParamSpec("Given")
_NEW_OBJECTS = 50_000
"""New objects after which garbage is looked for; with Python's 700, transformers loads a quarter slower."""


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedperfit {version('fedperfit')}")
        raise typer.Exit


def root(
    shown: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Take the options of a command line that stand before its command."""


def run(app: typer.Typer, name: str) -> None:
    """Run a command line; what goes wrong becomes one line on stderr.

    A mistake of the user, or a system that refuses, exits with code 2; a run that fails, with code 1, and
    one that ended for want of clients and can be resumed, with code 3. SIGTERM stops it as Ctrl-C does.

    Args:
        app: The command line.
        name: Name of the console script, for its help text.
    """
    os.environ.update(SAFE_PATH)
    gc.set_threshold(_NEW_OBJECTS)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        done = app(prog_name=name, standalone_mode=False)
        sys.exit(done if isinstance(done, int) else 0)
    except NoArgsIsHelpError as error:  # its text is the help
        error.show()
        sys.exit(error.exit_code)
    except ClickException as error:
        typer.echo(f"error: {printable(_told(error, name))}", err=True)
        sys.exit(error.exit_code)
    except Abort:
        typer.echo("aborted", err=True)
        sys.exit(1)
    except TooFewClients as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(3)
    except InputError as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(2)
    except RunFailed as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(1)
    except OSError as error:
        typer.echo(f"error: {printable(refusal_of(error))}", err=True)
        sys.exit(2)


def _told(error: ClickException, name: str) -> str:
    """Return what is wrong with a command line in one line, and whose help tells more."""
    path = error.ctx.command_path if isinstance(error, UsageError) and error.ctx else name
    return f"{' '.join(error.format_message().split()).rstrip('.')}; see {path} --help"


def console() -> Console:
    """Make a console that is wide if the output is not a terminal, so that hashes stay in one piece."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def print_line(line: str) -> None:
    """Print a line as it is, whatever names and paths it quotes: no markup, and nothing a terminal obeys.

    Args:
        line: One line.
    """
    console().print(printable(line), markup=False, soft_wrap=True)


@contextmanager
def going_on(out: Console, *words: str, **options: object) -> Iterator[None]:
    """Say by which command a work goes on that Ctrl-C or SIGTERM stops, as it can be typed; exit with 130.

    Args:
        out: Console to print to.
        words: Words of the command.
        options: Values of its options that no file holds, by name with underscores; None for those that were
            not given, a list for one that was given several times.
    """
    try:
        yield
    except KeyboardInterrupt:
        command = shlex.join([*words, *_typed(options)])
        out.print(f"stopped; go on with: {command}", soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(130) from None


def stoppable(command: Callable[Given, None]) -> Callable[Given, None]:
    """Have a command that is stopped before it has begun anything say that it can be typed again.

    Args:
        command: Command of `fedperfit`; what says itself how it goes on is left alone.
    """

    @wraps(command)
    def told(*given: Given.args, **named: Given.kwargs) -> None:
        with going_on(console(), "fedperfit", *sys.argv[1:]):
            command(*given, **named)

    return told


def _typed(options: Mapping[str, object]) -> Iterator[str]:
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one not in (None, ""):
                yield from (f"--{name.replace('_', '-')}", str(one))
