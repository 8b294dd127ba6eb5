"""`fedperfit basis`: makes the file of a public basis."""

from pathlib import Path
from typing import Annotated

import typer

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.settings.assignments import parse_assignments, parse_options
from fedperfit.protocol.settings.options import SET_HELP, setting_option
from fedperfit.protocol.system.commands import console


def basis(
    out: Annotated[Path, typer.Argument(dir_okay=False, help="File to write.")],
    items: Annotated[
        Path | None,
        typer.Option(
            help="Public items of the task: a JSON list, or one per line in a .jsonl file, as histories are; "
            "by default the world's population."
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Preset by name (see `fedperfit presets`) or a .toml file.")
    ] = "quickstart",
    task: Annotated[str | None, setting_option(JobSettings, "task")] = None,
    base_model: Annotated[str | None, setting_option(JobSettings, "base_model")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help=SET_HELP.format(example="update-columns=8"))
    ] = None,
) -> None:
    """Make the basis of a federation's updates of public items, which belong to none of its clients.

    Name the file in the settings: update-basis=public, basis-file=FILE.
    """
    from fedperfit.protocol.model.base_model import load
    from fedperfit.protocol.system.files import write_atomic
    from fedperfit.simulation.basis.public import make_basis, pairs_of_file, world_pairs

    options = {"task": task or None, "base_model": base_model or None}
    given = parse_options(JobSettings, options) | parse_assignments(JobSettings, set_)
    settings = JobSettings.from_some(read_preset(preset) | given)
    pairs = world_pairs(settings) if items is None else pairs_of_file(items, settings)
    made = make_basis(load(settings.base_model, device="auto", dtype="auto"), settings, pairs)
    write_atomic(out, made.to_bytes())
    console().print(
        f"wrote {out}: {made.numbers} coordinates, of {len(pairs)} pairs; digest {made.digest}", markup=False
    )
