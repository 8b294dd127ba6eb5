"""The command `fedperfit communication`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fedperfit.cloud.tracking.names import Track
from fedperfit.protocol.settings.assignments import parse_assignments, parse_options
from fedperfit.protocol.settings.options import SET_HELP, setting_option
from fedperfit.protocol.system.commands import console as wide_console
from fedperfit.protocol.system.commands import going_on, stoppable
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.cluster.options import ActorCpus, ActorGpus, RayAddress, Workers, asked, typed
from fedperfit.simulation.communication.settings import CommunicationSettings
from fedperfit.simulation.study_folder import check_begun, check_named, check_new, taken_back_if_refused
from fedperfit.simulation.world.build import WORLD


@stoppable
def communication(
    tasks: Annotated[str | None, setting_option(CommunicationSettings, "tasks")] = None,
    base_model: Annotated[str | None, setting_option(CommunicationSettings, "base_model")] = None,
    data: Annotated[str | None, setting_option(CommunicationSettings, "data")] = None,
    rows: Annotated[
        str | None,
        typer.Option(help="Rows by name, separated by commas; all by default. See --list-rows."),
    ] = None,
    users: Annotated[int | None, setting_option(CommunicationSettings, "users")] = None,
    others: Annotated[int | None, setting_option(CommunicationSettings, "others")] = None,
    rounds: Annotated[int | None, setting_option(CommunicationSettings, "rounds")] = None,
    seeds: Annotated[str | None, setting_option(CommunicationSettings, "seeds")] = None,
    draws: Annotated[int | None, setting_option(CommunicationSettings, "draws")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help=SET_HELP.format(example="clients-per-round=10"))
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder of the study; new by default: runs/communication-TIME."),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with the one in --run-dir, with more --rows or --seeds if named.")
    ] = False,
    list_rows: Annotated[bool, typer.Option(help="List the rows and end.")] = False,
    workers: Workers = 1,
    ray_address: RayAddress = "",
    actor_cpus: ActorCpus = None,
    actor_gpus: ActorGpus = None,
    track: Track = None,
) -> None:
    """Compare ways to send a federation's updates: score against bytes.

    Every row is really trained over the same clients, rounds and items, at a rate chosen on others: our
    updates from fp32 to one bit, in public, random and no bases, beside LoRA and what others made of it.
    Writes report.html and results.json; stopped by Ctrl-C or a kill, it goes on with --resume.

    Example: fedperfit communication --rows perfit,sign,lora --others 16 --draws 2
    """
    request = asked(workers, ray_address, actor_cpus, actor_gpus)
    options: dict[str, Any] = {
        **{"tasks": tasks, "base_model": base_model, "data": data, "rows": rows, "users": users},
        **{"others": others, "rounds": rounds, "seeds": seeds, "draws": draws},
    }
    given = parse_options(CommunicationSettings, options) | parse_assignments(CommunicationSettings, setting)
    settings = CommunicationSettings.from_flat(given)
    folder = (run_dir or Path("runs") / f"communication-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    if resume:
        check_begun(run_dir, "study")
        if set(given) - {"rows", "seeds"}:
            raise InputError("--resume takes the settings of the study: leave all but --rows and --seeds out")
    elif not list_rows:
        check_new(folder, resumable=True, beside=WORLD)
        check_named(settings.data, settings.base_model)

    from fedperfit.simulation.communication.row import rows_by_name

    console = wide_console()
    if list_rows:
        for name, row in rows_by_name().items():
            console.print(f"[bold]{name}[/bold]  {row.title}")
        return

    from fedperfit.cloud.tracking.sink import tracked
    from fedperfit.simulation.cluster.pace import progress
    from fedperfit.simulation.cluster.telling import teller
    from fedperfit.simulation.communication.page import REPORT, finding, pictures, terminal_table
    from fedperfit.simulation.communication.study import begin, extend, run_study

    if resume:
        extend(folder, given.get("rows", []), given.get("seeds", []))
    else:
        begin(folder, settings)
    started = time.monotonic()
    again = typed(None if workers == 1 else workers, ray_address, actor_cpus, actor_gpus)
    with (
        going_on(
            console, "fedperfit", "communication", "--resume", "--run-dir", str(folder), **again, track=track
        ),
        taken_back_if_refused(folder, new=not resume),
        console.status("reading people and model …") as status,
        tracked(track, "communication", pictures) as follow,
    ):
        tell = teller(console, status)

        def heard(event: dict[str, Any]) -> None:
            follow(event)
            if event["event"] in ("start", "work"):
                tell(progress(event, time.monotonic() - started))

        results = run_study(folder, heard, request)
    for name, about in results["tasks"].items():
        console.print(terminal_table(name, about))
        console.print(finding(about), markup=False, soft_wrap=True)
    console.print(f"report: {folder / REPORT}", soft_wrap=True, markup=False)
