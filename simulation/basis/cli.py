"""`fedperfit basis` and `prior`: make the files of a public basis, and of how public people differ in one."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.settings.assignments import parse_assignments, parse_options
from fedperfit.protocol.settings.options import SET_HELP, setting_option
from fedperfit.protocol.system.commands import console, going_on
from fedperfit.protocol.system.errors import InputError, MissingFileError, count_of
from fedperfit.protocol.system.files import from_home

_Out = Annotated[Path, typer.Argument(dir_okay=False, help="File to write.")]
_Preset = Annotated[str, typer.Option(help="Preset by name (see `fedperfit presets`) or a .toml file.")]
_Task = Annotated[str | None, setting_option(JobSettings, "task")]
_BaseModel = Annotated[str | None, setting_option(JobSettings, "base_model")]
_Set = Annotated[list[str] | None, typer.Option("--set", help=SET_HELP.format(example="update-columns=8"))]


def basis(
    out: _Out,
    items: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Public items of the task: a JSON list, or one per line in a .jsonl file, as histories are; "
            "by default the world's population.",
        ),
    ] = None,
    preset: _Preset = "quickstart",
    task: _Task = None,
    base_model: _BaseModel = None,
    set_: _Set = None,
) -> None:
    """Make the basis of a federation's updates of public items, which belong to none of its clients.

    Name the file in the settings: update-basis=public, basis-file=FILE.
    """
    settings = _settings(read_preset(preset), task, base_model, set_)

    from fedperfit.edge.engine.paths.check import load_checked
    from fedperfit.protocol.system.files import write_atomic
    from fedperfit.simulation.basis.public import make_basis, pairs_of_file, world_pairs

    pairs = world_pairs(settings) if items is None else pairs_of_file(items, settings)
    made = make_basis(load_checked(settings.base_model, device="auto", dtype="auto"), settings, pairs)
    write_atomic(out, made.to_bytes())
    console().print(
        f"wrote {out}: {count_of(made.numbers, 'coordinate')}, of {count_of(len(pairs), 'pair')}; "
        f"digest {made.digest}",
        markup=False,
    )


def prior(
    out: _Out,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of a data set whose others are public; by default the world's population."),
    ] = None,
    people: Annotated[int, typer.Option(min=2, help="People who are fitted, at most.")] = 128,
    items: Annotated[int, typer.Option(min=1, help="Latest items of each, at most.")] = 24,
    preset: _Preset = "quickstart",
    task: _Task = None,
    base_model: _BaseModel = None,
    set_: _Set = None,
) -> None:
    """Find how public people differ, for the prior over people of a federation that none of them is in.

    Each is fitted alone, in the basis of the settings, by many passes over their items; only a sum over all
    of them is kept. Typed again after a stop, it goes on where it was. Name the file in the settings:
    people-prior=true, prior-source=public, prior-file=FILE.

    Example: fedperfit prior people.scatter --data data/LaMP_3 --task LaMP_3 --set update-basis=random
    """
    values = {"update-basis": "public"} | read_preset(preset)
    settings = _settings(values, task, base_model, set_)
    if data is not None and not from_home(data).exists():
        raise MissingFileError(f"{data}: no such file or folder")
    if settings.update_basis == "none":
        raise InputError("update-basis=none: people differ in a basis; name one")

    from fedperfit.cloud.job.basis import settings_basis
    from fedperfit.edge.engine.paths.check import load_checked
    from fedperfit.simulation.basis.people import people_of_data, world_people, write_people

    base = load_checked(settings.base_model, device="auto", dtype="auto")
    basis = settings_basis(settings, base.card)
    assert basis is not None
    if data is None:
        histories = world_people(settings, people, items)
    else:
        histories = people_of_data(from_home(data), settings, people, items)
    shown = console()

    def told(fitted: int, all_people: int) -> None:
        shown.print(f"{fitted} of {count_of(all_people, 'person', 'people')} fitted", highlight=False)

    with going_on(shown, "fedperfit", *sys.argv[1:]):
        scatter = write_people(out, base, settings, basis, histories, told)
    shown.print(
        f"wrote {out}: how {scatter.count + 1} people differ in {count_of(basis.numbers, 'coordinate')}",
        markup=False,
    )


def _settings(
    values: dict[str, Any], task: str | None, base_model: str | None, assignments: list[str] | None
) -> JobSettings:
    options = {"task": task or None, "base_model": base_model or None}
    given = parse_options(JobSettings, options) | parse_assignments(JobSettings, assignments)
    return JobSettings.from_some(values | given)
