"""`fedperfit basis` and `prior`: make the files of a public basis, and of how public people differ in one."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.settings.assignments import parse_assignments, parse_options
from fedperfit.protocol.settings.options import SET_HELP, setting_option
from fedperfit.protocol.system.commands import console, stoppable
from fedperfit.protocol.system.errors import InputError, MissingFileError, count_of
from fedperfit.protocol.system.files import from_home
from fedperfit.protocol.tasks import Pair

_Out = Annotated[Path, typer.Argument(dir_okay=False, help="File to write.")]
_Preset = Annotated[str, typer.Option(help="Preset by name (see `fedperfit presets`) or a .toml file.")]
_Task = Annotated[str | None, setting_option(JobSettings, "task")]
_BaseModel = Annotated[str | None, setting_option(JobSettings, "base_model")]
_Set = Annotated[list[str] | None, typer.Option("--set", help=SET_HELP.format(example="update-columns=8"))]


@stoppable
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
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a data set whose others are public, for a basis that is learned; by default the "
            "world's population."
        ),
    ] = None,
    people: Annotated[int, typer.Option(min=2, help="People from whom a basis is learned, at most.")] = 256,
    preset: _Preset = "quickstart",
    task: _Task = None,
    base_model: _BaseModel = None,
    set_: _Set = None,
) -> None:
    """Make the basis of a federation's updates of public items, or learn it from public people.

    Nobody of them is a client. Name the file in the settings: update-basis=public, basis-file=FILE. With
    --set update-basis=learned, whose work goes on after a stop when it is typed again, a file FILE.people
    beside it says how these people differ: people-prior=true, prior-source=public, prior-file=FILE.people.

    Example: fedperfit basis my.basis --set update-basis=learned --data data/LaMP_3 --task LaMP_3
    """
    settings = _settings(read_preset(preset), task, base_model, set_)
    _check_there(data)
    if settings.update_basis == "learned":
        if items is not None:
            raise InputError("--items: a basis is learned from people: name a data set by --data")
        return _learn(out, data, people, settings)
    if data is not None:
        raise InputError("--data: only for a basis that is learned, by --set update-basis=learned")

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


def _learn(out: Path, data: Path | None, people: int, settings: JobSettings) -> None:
    """Learn a basis, and write it with how the people differ in it who taught it."""
    from fedperfit.edge.engine.paths.check import load_checked
    from fedperfit.protocol.people.scatter import MOST_NUMBERS, Scatter
    from fedperfit.protocol.system.files import write_atomic
    from fedperfit.simulation.basis.learned import ITEMS, learn_basis

    histories = _histories(data, settings, people, ITEMS)
    base = load_checked(settings.base_model, device="auto", dtype="auto")
    kept = out.with_name(out.name + ".part")
    shown = console()

    def told(done: int, steps: int) -> None:
        shown.print(f"{done} of {count_of(steps, 'step')} learned", highlight=False)

    made, coordinates = learn_basis(kept, base, settings, histories, told)
    beside = ""
    if made.numbers <= MOST_NUMBERS:
        differ = out.with_name(out.name + ".people")
        write_atomic(differ, Scatter.of(made.digest, coordinates).to_bytes())
        beside = f"; {differ}: how they differ"
    write_atomic(out, made.to_bytes())
    kept.unlink(missing_ok=True)
    shown.print(
        f"wrote {out}: {count_of(made.numbers, 'coordinate')}, learned from "
        f"{count_of(len(coordinates), 'person', 'people')}; digest {made.digest}{beside}",
        markup=False,
    )


def _check_there(data: Path | None) -> None:
    if data is not None and not from_home(data).exists():
        raise MissingFileError(f"{data}: no such file or folder")


def _histories(data: Path | None, settings: JobSettings, people: int, items: int) -> list[list[Pair]]:
    """Return the pairs of public people: a data set's others, or the world's population."""
    from fedperfit.simulation.basis.people import people_of_data, world_people

    if data is None:
        return world_people(settings, people, items)
    return people_of_data(from_home(data), settings, people, items)


@stoppable
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
    _check_there(data)
    if settings.update_basis == "none":
        raise InputError("update-basis=none: people differ in a basis; name one")

    from fedperfit.cloud.job.basis import settings_basis
    from fedperfit.edge.engine.paths.check import load_checked
    from fedperfit.simulation.basis.people import write_people

    histories = _histories(data, settings, people, items)
    base = load_checked(settings.base_model, device="auto", dtype="auto")
    basis = settings_basis(settings, base.card)
    assert basis is not None
    shown = console()

    def told(fitted: int, all_people: int) -> None:
        shown.print(f"{fitted} of {count_of(all_people, 'person', 'people')} fitted", highlight=False)

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
