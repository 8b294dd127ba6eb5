"""`fedperfit`: simulations, data and reports."""

import shlex
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fedperfit.cloud.tracking.names import Track
from fedperfit.protocol.settings.options import setting_option
from fedperfit.protocol.system.commands import going_on, root, run, stoppable
from fedperfit.protocol.system.errors import InputError, count_of
from fedperfit.simulation.analyze.cli import analyze
from fedperfit.simulation.audit.cli import audit
from fedperfit.simulation.basis.cli import basis, prior
from fedperfit.simulation.benchmark.cli import benchmark
from fedperfit.simulation.cluster.options import (
    ActorCpus,
    ActorGpus,
    RayActors,
    RayAddress,
    refuse_unused,
    share_of_gpu,
)
from fedperfit.simulation.communication.cli import communication
from fedperfit.simulation.compare.cli import compare
from fedperfit.simulation.data.cli import data_app
from fedperfit.simulation.plan.cli import plan
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.settings_cli import presets, settings
from fedperfit.simulation.study_folder import LOCK, check_free, check_named
from fedperfit.simulation.tuning_cli import tune, tune_prior
from fedperfit.simulation.watch.cli import watch

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Personalize a frozen language model for many users without collecting their histories. "
    "Start with `fedperfit simulate`, then open the report it names.",
)

app.callback()(root)
app.add_typer(data_app, name="data")
app.command()(benchmark)
app.command()(compare)
app.command()(communication)
app.command()(analyze)
app.command()(audit)
app.command()(tune)
app.command("tune-prior")(tune_prior)
app.command()(watch)
app.command()(plan)
app.command()(basis)
app.command()(prior)
app.command()(settings)
app.command()(presets)

_WIDE = 110
"""Columns of a table that goes to a file or a pipe."""


class Backend(StrEnum):
    """How the clients of a simulation are run."""

    COHORTS = "cohorts"
    RAY = "ray"
    FLOWER = "flower"


@app.command()
@stoppable
def simulate(
    preset: Annotated[
        str, typer.Option(help="Preset by name (see `fedperfit presets`) or a .toml file.")
    ] = "quickstart",
    task: Annotated[str | None, setting_option(RunSettings, "task")] = None,
    base_model: Annotated[str | None, setting_option(RunSettings, "base_model")] = None,
    data: Annotated[str | None, setting_option(RunSettings, "data")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder of the run; new by default: runs/TASK-TIME.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --run-dir, killed or not.")] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, e.g. --set rounds=8 --set positions=f7+l7."),
    ] = None,
    backend: Annotated[
        Backend,
        typer.Option(
            help="`cohorts`: all clients in this process, side by side; `ray`: so in several processes, on "
            "one machine or many; `flower`: SuperLink, Ray, one by one."
        ),
    ] = Backend.COHORTS,
    ray_address: RayAddress = "",
    ray_actors: RayActors = 0,
    actor_cpus: ActorCpus = None,
    actor_gpus: ActorGpus = None,
    client_gpus: Annotated[
        float,
        typer.Option(
            callback=share_of_gpu,
            help="With `--backend flower`: share of a GPU per client, where there is one.",
        ),
    ] = 0.25,
    track: Track = None,
) -> None:
    """Run the main job: collective shift by federation, personal shifts at the edge, report.

    Writes one run folder with settings, figures (metrics.json), bytes (ledger/), shifts and
    report.html. Stopped by Ctrl-C or a kill, it goes on with --resume and ends with the same result,
    unless its rounds are asynchronous.

    Example: fedperfit simulate --task LaMP_3 --set personal-rank=8
    """
    from fedperfit.cloud.job.settings import SETTINGS
    from fedperfit.protocol.settings.assignments import parse_assignments

    on_ray = {"ray-address": ray_address, "ray-actors": ray_actors, "actor-cpus": actor_cpus}
    if backend is not Backend.RAY:
        refuse_unused("--backend ray", {**on_ray, "actor-gpus": actor_gpus})
    console = Console()
    if resume:
        if run_dir is None:
            raise InputError("--resume needs --run-dir, the folder of the run to go on with")
        if any(value is not None for value in (task, base_model, data, setting)):
            raise InputError("--resume takes the settings of the run: leave the other options out")
        settings = RunSettings.from_file(run_dir / SETTINGS)
        folder = run_dir
    else:
        named = {"task": task, "base-model": base_model, "data": data}
        overrides = {key: value for key, value in named.items() if value is not None}
        settings = RunSettings.read(preset, overrides | parse_assignments(RunSettings, setting))
        folder = run_dir or Path("runs") / f"{settings.task_id}-{time.strftime('%Y%m%d-%H%M%S')}"
        if not (folder / LOCK).exists():  # else a process may be at work, which is looked at later
            check_free(folder)
        check_named(settings.data, settings.base_model)
    # Only now what takes seconds: a mistake in the settings is told at once.
    from fedperfit.cloud.tracking.sink import tracked
    from fedperfit.protocol.model.base_model import read_card
    from fedperfit.simulation.cluster.cluster import ClusterRequest
    from fedperfit.simulation.run.clients import prepare_run
    from fedperfit.simulation.run.job import at_work, run_cohorts
    from fedperfit.simulation.run.report import pictures
    from fedperfit.simulation.run.runner import run_simulation

    settings.check(read_card(settings.base_model))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    again = ("fedperfit", "simulate", "--resume", "--run-dir", str(folder))
    typed: dict[str, object] = {"backend": None if backend is Backend.COHORTS else backend, "track": track}
    typed |= {"ray_address": ray_address, "ray_actors": ray_actors or None}
    typed |= {"actor_cpus": actor_cpus, "actor_gpus": actor_gpus}
    with going_on(console, *again, **typed), at_work(folder):
        clients = prepare_run(settings, folder, resume=resume)
    who = count_of(len(clients), "client")
    about = f"{settings.task_id} on {settings.base_model}, {who}, run folder {folder}"
    console.print(about, soft_wrap=True, markup=False)
    started = time.monotonic()
    with (
        going_on(console, *again, **typed),
        console.status("starting …") as status,
        tracked(track, "simulate", pictures) as follow,
    ):

        def show(event: dict[str, Any]) -> None:
            follow(event)
            line = describe(event)
            elapsed = f"[dim]{time.monotonic() - started:5.0f} s[/dim]"
            if event["event"] in ("phase", "reply"):
                status.update(f"{elapsed} {line}")
            elif line:
                console.print(f"{elapsed}  {line}", highlight=False)

        if backend is Backend.COHORTS:
            run_cohorts(folder, show)
        elif backend is Backend.RAY:
            run_cohorts(folder, show, ClusterRequest(ray_address, ray_actors, actor_cpus, actor_gpus))
        else:
            run_simulation(folder, clients=len(clients), client_gpus=client_gpus, on_event=show)
    finish(console, folder)


def describe(event: dict[str, Any]) -> str:
    """One line for a progress event; empty for those not worth one."""
    kind = event["event"]
    if kind == "phase":
        return f"{event['phase']}: {count_of(event['clients'], 'client')} …"
    if kind == "reply":
        return f"{event['phase']}: {event['replies']} of {count_of(event['clients'], 'client')}"
    if kind == "connected":
        return f"{count_of(event['clients'], 'client')} connected"
    if kind == "public-people":
        people = count_of(event["people"], "public person", "public people")
        return f"prior over people: {event['fitted']} of {people} fitted"
    if kind == "basis":
        return f"update basis: {event['done']} of {count_of(event['steps'], 'step')} learned"
    if kind == "round":
        loss = "" if event["loss"] is None else f"  loss {event['loss']:.3f}"
        dropped = f", {event['dropped']} dropped" if event["dropped"] else ""
        return (
            f"{event['phase']}: round {event['round']}/{event['rounds']}  "
            f"{count_of(event['admitted'], 'update')}{dropped}{loss}  "
            f"down {event['down'] / 1e6:.2f} MB  up {event['up'] / 1e6:.2f} MB"
        )
    if kind == "chosen":
        chosen = ", ".join(f"{key} {value}" for key, value in event["settings"].items())
        clients = count_of(event["clients"], "client")
        return f"{chosen}: chosen from the gradients of {clients} in {event['seconds']:.0f} s"
    if kind == "memory":
        each = event["kept"] / max(1, event["items"]) / 1e3
        return (
            f"memory: {event['peak'] / 2**30:.1f} GiB at most, {event['kept'] / 2**30:.1f} GiB of it "
            f"for {count_of(event['items'], 'prepared item')}, {each:.0f} kB each"
        )
    if kind == "result":
        return f"{event['phase']}: {count_of(event['clients'], 'client')}"
    return ""


def finish(console: Console, folder: Path) -> None:
    """Print the summary of a finished run."""
    from fedperfit.protocol.system.files import read_json
    from fedperfit.simulation.run.report import summary_table

    console.print(summary_table(read_json(folder / "metrics.json")))
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True, markup=False)


@app.command()
def report(run_dir: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Write metrics.json and report.html of a run again, and print its summary."""
    from fedperfit.simulation.run.summary import write_metrics

    write_metrics(run_dir)

    from fedperfit.simulation.run.report import write_report

    write_report(run_dir)
    finish(Console(), run_dir)


@app.command()
def timeline(
    run_dirs: Annotated[list[Path], typer.Argument(help="Folders of runs of one task, with device-seconds.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="Picture to write, .svg or .png.")] = Path(
        "timeline.svg"
    ),
) -> None:
    """Draw how the scores of runs grow over simulated time, and print when each of them was through.

    Example: fedperfit timeline runs/waiting runs/buffered
    """
    from fedperfit.simulation.finished.timeline import draw, read_times, times_table

    runs = read_times(run_dirs)
    draw(runs, out)
    console = Console()
    console.print(times_table(runs))
    console.print(f"picture: {out}", soft_wrap=True, markup=False)


@app.command()
def difference(
    run: Annotated[list[Path], typer.Option(help="Folder of a run; more than once to pool several.")],
    other: Annotated[list[Path], typer.Option(help="Folder of the run it is compared with, one for each.")],
) -> None:
    """Compare runs with others over the same people, phase by phase, paired over people.

    The share is that of the way from the other run to the best possible score, where it is known.

    Example: fedperfit difference --run runs/prior --other runs/plain
    """
    from fedperfit.simulation.finished.differences import differences, differences_table

    if len(run) != len(other):
        raise InputError(f"{len(run)} --run and {len(other)} --other: each run needs one to be compared with")
    main, rows = differences(list(zip(run, other, strict=True)))
    console = Console()
    if not console.is_terminal:
        console.width = _WIDE
    console.print(differences_table(main, rows))


@app.command("flower-env")
def flower_env(
    preset: Annotated[str, typer.Option(help="Preset the run will use.")] = "quickstart",
    setting: Annotated[list[str] | None, typer.Option("--set", help="Its other settings.")] = None,
    client_gpus: Annotated[
        float, typer.Option(callback=share_of_gpu, help="Share of a GPU per simulated client.")
    ] = 0.25,
) -> None:
    """Print the environment for plain `flwr run . --stream`: eval "$(fedperfit flower-env)".

    Writes runs/flower-home with a simulation of as many nodes as the preset has clients.
    """
    from fedperfit.protocol.settings.assignments import parse_assignments

    settings = RunSettings.read(preset, parse_assignments(RunSettings, setting))

    from fedperfit.protocol.system.run_folder import RUNS_VARIABLE
    from fedperfit.simulation.run.clients import count_clients
    from fedperfit.simulation.run.environment import variables, write_flower_home

    runs = Path("runs").resolve()
    home = runs / "flower-home"
    write_flower_home(home, address=":local:", clients=count_clients(settings), client_gpus=client_gpus)
    for name, value in (variables(home, str(home), client_gpus) | {RUNS_VARIABLE: str(runs)}).items():
        print(f"export {name}={shlex.quote(value)}")


def main() -> None:
    """Run the console script `fedperfit`."""
    run(app, "fedperfit")


if __name__ == "__main__":
    main()
