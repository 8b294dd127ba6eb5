"""The command `fedperfit compare`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fedperfit.cloud.tracking.names import Track
from fedperfit.protocol.settings.assignments import parse_assignments, parse_options
from fedperfit.protocol.settings.options import SET_HELP, setting_option
from fedperfit.protocol.system.commands import console as wide_console
from fedperfit.protocol.system.commands import going_on, stoppable
from fedperfit.protocol.system.errors import RunFailed, count_of
from fedperfit.simulation.cluster.options import ActorCpus, ActorGpus, RayAddress, typed
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.study_folder import check_begun, check_named, check_new, taken_back_if_refused
from fedperfit.simulation.world.build import WORLD

_ALL = ["all"]
"""What stands for all methods that suit the tasks, until their modules are loaded."""


@stoppable
def compare(
    tasks: Annotated[str | None, setting_option(CompareSettings, "tasks")] = None,
    base_model: Annotated[str | None, setting_option(CompareSettings, "base_model")] = None,
    data: Annotated[str | None, setting_option(CompareSettings, "data")] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Methods by name, separated by commas; all by default. See --list-methods."),
    ] = None,
    method_file: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True, dir_okay=False, help="A Python file with a Method of your own; its rows join in."
        ),
    ] = None,
    users: Annotated[int | None, setting_option(CompareSettings, "users")] = None,
    others: Annotated[int | None, setting_option(CompareSettings, "others")] = None,
    seeds: Annotated[str | None, setting_option(CompareSettings, "seeds")] = None,
    draws: Annotated[int | None, setting_option(CompareSettings, "draws")] = None,
    values_of: Annotated[Path | None, setting_option(CompareSettings, "values_of")] = None,
    validation_users: Annotated[int | None, setting_option(CompareSettings, "validation_users")] = None,
    history_lengths: Annotated[str | None, setting_option(CompareSettings, "history_lengths")] = None,
    collective_sizes: Annotated[str | None, setting_option(CompareSettings, "collective_sizes")] = None,
    curve_users: Annotated[int | None, setting_option(CompareSettings, "curve_users")] = None,
    prompt_form: Annotated[str | None, setting_option(CompareSettings, "prompt_form")] = None,
    encoder: Annotated[str | None, setting_option(CompareSettings, "encoder")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help=SET_HELP.format(example="world-history=32"))
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder of the comparison; new by default: runs/compare-TIME."),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with the one in --run-dir, with more --methods or --seeds if named.")
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            min=0, help="Processes side by side, on Ray if more than one; 0 is one per core that has room."
        ),
    ] = 0,
    ray_address: RayAddress = "",
    actor_cpus: ActorCpus = None,
    actor_gpus: ActorGpus = None,
    device: Annotated[str | None, setting_option(CompareSettings, "device")] = None,
    list_methods: Annotated[bool, typer.Option(help="List the methods and end.")] = False,
    track: Track = None,
) -> None:
    """Compare methods of personalization on the same model, users, items and seeds.

    Every method's hyper-parameters come from the same random search on users who are no targets. Writes
    report.html, metrics.json, results.csv and LaMP prediction files; stopped by Ctrl-C or a kill, it goes
    on with --resume. Intervals are bootstrapped over users.

    Example: fedperfit compare --methods base,rag-2,oppu,perfit --seeds 0 --users 8
    """
    files = [path.resolve() for path in method_file or []]
    options: dict[str, Any] = {
        **{"tasks": tasks, "methods": methods, "base_model": base_model, "data": data, "encoder": encoder},
        **{"device": device, "prompt_form": prompt_form, "seeds": seeds, "draws": draws},
        **{"validation_users": validation_users, "others": others, "users": users},
        **{"history_lengths": history_lengths, "collective_sizes": collective_sizes},
        **{"curve_users": curve_users, "values_of": str(values_of.resolve()) if values_of else None},
        "method_files": [str(path) for path in files],
    }
    given = parse_options(CompareSettings, options) | parse_assignments(CompareSettings, setting)
    settings = CompareSettings.from_flat({"methods": _ALL, **given})
    folder = run_dir or Path("runs") / f"compare-{time.strftime('%Y%m%d-%H%M%S')}"
    if resume:
        check_begun(run_dir, "comparison")
    elif not list_methods:
        check_new(folder, resumable=True, beside=WORLD)
        check_named(settings.data, settings.base_model)

    from fedperfit.protocol.tasks import task_by_name
    from fedperfit.simulation.compare.method import registry

    console = wide_console()
    if list_methods:
        for name, method in registry(files).items():
            console.print(f"[bold]{name}[/bold]  {method.title}")
        return

    from fedperfit.cloud.tracking.sink import tracked
    from fedperfit.simulation.cluster.cluster import ClusterRequest
    from fedperfit.simulation.cluster.pace import progress
    from fedperfit.simulation.cluster.telling import teller
    from fedperfit.simulation.compare.page import REPORT, pictures, standing, terminal_table
    from fedperfit.simulation.compare.study import begin, extend, run_comparison
    from fedperfit.simulation.compare.workers import FAILED

    where = ClusterRequest(ray_address, cpus=actor_cpus, gpus=actor_gpus)
    if resume:
        if "methods" in given or "seeds" in given:
            extend(folder, given.get("methods", []), given.get("seeds", []))
    else:
        if "methods" not in given:
            named = [task_by_name(task) for task in settings.tasks]
            suiting = [name for name, method in registry(files).items() if any(map(method.suits, named))]
            settings = settings.replace(methods=suiting)
        begin(folder, settings)
    folder = folder.resolve()
    again = typed(workers or None, ray_address, actor_cpus, actor_gpus)
    with (
        going_on(console, "fedperfit", "compare", "--resume", "--run-dir", str(folder), **again, track=track),
        taken_back_if_refused(folder, new=not resume),
        console.status("planning …") as status,
        tracked(track, "compare", pictures) as follow,
    ):
        started, tell = time.monotonic(), teller(console, status, at_once=True)

        def heard(event: dict[str, Any]) -> None:
            nonlocal started
            follow(event)
            if event["event"] == "start":
                started = time.monotonic()
                processes = count_of(event["workers"], "process", "processes")
                line = f"{event['total']} draws and cells left, {processes}, folder {folder}"
                console.print(line, soft_wrap=True, markup=False)
            elif event["event"] == "work":
                tell(progress(event, time.monotonic() - started))

        summary = run_comparison(folder, workers, heard, where)
    for name, about in summary["tasks"].items():
        console.print(terminal_table(name, about))
        console.print(standing(about), soft_wrap=True)
    console.print(f"report: {folder / REPORT}", soft_wrap=True, markup=False)
    if failed := summary.get("failed"):
        raise RunFailed(f"{'; '.join(failed)}; the calls are in {folder / FAILED}, --resume tries again")
