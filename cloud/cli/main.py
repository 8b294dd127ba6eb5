"""`fedperfit-cloud`: run a cloud, and look at what its federations leave on disk."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedperfit.cloud.cli import deployment as deploy_cli
from fedperfit.cloud.cli import doctor as doctor_cli
from fedperfit.cloud.cli import enrolment as enrol_cli
from fedperfit.cloud.cli import portable as portable_cli
from fedperfit.cloud.cli import release as release_cli
from fedperfit.cloud.cli import tls as tls_cli
from fedperfit.protocol.system.commands import console, print_line, root, run
from fedperfit.protocol.system.errors import InputError, MissingFileError, count_of

app = typer.Typer(
    name="fedperfit-cloud",
    help="The cloud's side of fedperfit.\n\n"
    "A federation trains the collective shift over many clients, writes one checkpoint per round, and "
    "ends in a signed release that every edge builds its own personal shift on. Nothing here needs a "
    "GPU; of the base model the files are read for their fingerprint, and no more.",
    epilog="Begin with: fedperfit-cloud init FOLDER, then up, enroll and run.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
checkpoint_app = typer.Typer(help="Checkpoints: one file per finished round.", no_args_is_help=True)
for command in (
    deploy_cli.init,
    deploy_cli.up,
    enrol_cli.enroll,
    enrol_cli.approve,
    enrol_cli.unenroll,
    deploy_cli.policy,
    deploy_cli.run,
    doctor_cli.doctor,
):
    app.command()(command)
release_cli.app.command()(portable_cli.export)
release_cli.app.command()(portable_cli.push)
release_cli.app.command("import-pyreft")(portable_cli.import_pyreft)
app.add_typer(release_cli.app, name="release")
app.add_typer(tls_cli.app, name="tls")
app.add_typer(checkpoint_app, name="checkpoint")
app.callback()(root)


@checkpoint_app.command("show")
def show_checkpoint(
    folder: Annotated[Path, typer.Argument(help="A run's folder of round-*.safetensors files.")],
) -> None:
    """Print the rounds of a federation, from its latest checkpoint.

    One line per round: clients asked, updates admitted, replies dropped (with the reasons below), the
    training loss of the clients that share it, and the bytes of whole messages in each direction.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder")
    if not any(folder.glob("round-*.safetensors")):
        raise InputError(f"{folder}: no checkpoint")

    from fedperfit.cloud.rounds.checkpoint import Checkpoints

    checkpoint = Checkpoints(folder).latest()
    assert checkpoint is not None
    header = checkpoint.header
    table = Table(
        title=f"{header.task}, {count_of(checkpoint.round, 'round')}, settings {checkpoint.digest[:12]}"
    )
    for name in ("round", "asked", "admitted", "dropped", "items", "loss", "down", "up"):
        table.add_column(name, justify="right")
    for report in checkpoint.history:
        table.add_row(
            *(str(report.round) + (" (skipped)" if report.skipped else ""), str(len(report.asked))),
            *(str(len(report.admitted)), str(len(report.dropped)), str(report.items)),
            "" if report.loss is None else f"{report.loss:.4f}",
            *(f"{report.bytes_down:,}", f"{report.bytes_up:,}"),
        )
    out = console()
    out.print(table)
    for report in checkpoint.history:
        for client, reason in report.dropped.items():
            print_line(f"round {report.round}: dropped {client}: {reason}")


def main() -> None:
    """Run the console script `fedperfit-cloud`."""
    run(app, "fedperfit-cloud")
